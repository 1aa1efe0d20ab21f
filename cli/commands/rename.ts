import { Args } from '@oclif/core';
import { renameContainer } from '../../runtime/containers.ts';
import { PgCommand } from '../base.ts';

export default class Rename extends PgCommand {
  static override summary = 'Give a container another name.';
  static override examples = ['<%= config.bin %> rename swift_heron web'];
  static override args = {
    container: Args.string({ description: 'name or id', required: true }),
    name: Args.string({ description: 'the new name', required: true }),
  };

  async run(): Promise<void> {
    const { args, flags } = await this.parse(Rename);
    await renameContainer(this.roots(flags), args.container, args.name);
  }
}
