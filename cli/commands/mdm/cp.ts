import { Args } from '@oclif/core';
import { Host } from '../../../store/host/host.ts';
import { openStore } from '../../../store/store.ts';
import { MdmCommand } from '../../mdm/command.ts';
import { hostName } from '../../mdm/target.ts';

export default class MdmCp extends MdmCommand {
  static override summary = "Copy one of the machine's files in pg's store to a new one.";
  static override description =
    'The two share their sectors until they are changed: 32 bytes for 4 MiB are what it costs.';
  static override examples = ['<%= config.bin %> mdm cp store:ledger store:ledger-2'];
  static override args = {
    from: Args.string({ description: 'store:NAME, or NAME', required: true }),
    to: Args.string({ description: 'store:NAME, or NAME, which is not there yet', required: true }),
  };

  async run(): Promise<void> {
    const { args, flags } = await this.parse(MdmCp);
    const store = openStore(this.roots(flags));
    try {
      new Host(store).copy(hostName(args.from) ?? args.from, hostName(args.to) ?? args.to);
    } finally {
      await store.close();
    }
  }
}
