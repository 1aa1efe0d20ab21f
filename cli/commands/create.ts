import { Args } from '@oclif/core';
import { commandWords } from '../argv.ts';
import { PgCommand } from '../base.ts';
import { newContainer } from '../new-container.ts';
import { runFlags } from '../run-flags.ts';

export default class Create extends PgCommand {
  static override summary = 'Make a container from an image without starting it.';
  static override description = 'Prints its id. The flags are those of pg run.';
  static override usage = 'create [FLAGS] IMAGE [COMMAND] [ARG...]';
  static override examples = [
    '<%= config.bin %> create --name web -p 8080:80 nginx',
    { description: 'and start it', command: '<%= config.bin %> start web' },
  ];
  static override flags = runFlags;
  static override args = {
    image: Args.string({ description: 'image name or id', required: true }),
    command: Args.string({ description: "in place of the image's command" }),
  };
  static override strict = false;

  async run(): Promise<void> {
    const { args, flags } = await this.parse(Create);
    const record = await newContainer(this.roots(flags), args.image, commandWords(this.argv), flags);
    process.stdout.write(`${record.id}\n`);
  }
}
