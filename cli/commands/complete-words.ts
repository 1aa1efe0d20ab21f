import { PgCommand } from '../base.ts';
import { complete } from '../complete.ts';

export default class CompleteWords extends PgCommand {
  static override summary = 'What the shell asks when Tab is pressed (see completion).';
  static override examples = ["<%= config.bin %> complete-words -- stop ''"];
  static override hidden = true;
  static override strict = false;

  async run(): Promise<void> {
    const { argv, flags } = await this.parse(CompleteWords);
    const found = await complete(this.config, this.roots(flags), argv as string[]).catch(() => []);
    if (found.length > 0) process.stdout.write(`${found.join('\n')}\n`);
  }
}
