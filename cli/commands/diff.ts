import { Args } from '@oclif/core';
import { containerChanges } from '../../runtime/containers.ts';
import { PgCommand } from '../base.ts';

export default class Diff extends PgCommand {
  static override summary = "What a container's writable layer changed against its image.";
  static override description = 'A path a line: A added, C changed, D deleted.';
  static override examples = ['<%= config.bin %> diff web'];
  static override args = { container: Args.string({ description: 'name or id', required: true }) };

  async run(): Promise<void> {
    const { args, flags } = await this.parse(Diff);
    for (const { kind, path } of await containerChanges(this.roots(flags), args.container)) {
      process.stdout.write(Buffer.from(`${kind} ${path}\n`, 'latin1'));
    }
  }
}
