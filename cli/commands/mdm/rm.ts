import { Args } from '@oclif/core';
import { Host } from '../../../store/host/host.ts';
import { openStore } from '../../../store/store.ts';
import { MdmCommand } from '../../mdm/command.ts';
import { hostName } from '../../mdm/target.ts';

export default class MdmRm extends MdmCommand {
  static override summary = "Remove one of the machine's files from pg's store.";
  static override description =
    "What no other file has of it is given back at once, and its sectors by the next 'pg gc'.";
  static override examples = ['<%= config.bin %> mdm rm store:ledger'];
  static override args = { file: Args.string({ description: 'store:NAME, or NAME', required: true }) };

  async run(): Promise<void> {
    const { args, flags } = await this.parse(MdmRm);
    const store = openStore(this.roots(flags));
    try {
      new Host(store).remove(hostName(args.file) ?? args.file);
    } finally {
      await store.close();
    }
  }
}
