import type { State } from '../../../mdm/instruction.ts';
import { Host } from '../../../store/host/host.ts';
import { openStore } from '../../../store/store.ts';
import { MdmCommand } from '../../mdm/command.ts';
import { toHex } from '../../mdm/read-json.ts';
import { listFlags, printList } from '../../output.ts';

export default class MdmLs extends MdmCommand {
  static override summary = "List the machine's files in pg's store.";
  static override examples = ['<%= config.bin %> mdm ls', "<%= config.bin %> mdm ls --format '{{.Name}} {{.Root}}'"];
  static override flags = listFlags;

  async run(): Promise<void> {
    const { flags } = await this.parse(MdmLs);
    const store = openStore(this.roots(flags));
    try {
      printList<{ name: string; state: State }>(
        [...new Host(store).list()],
        [
          { header: 'NAME', key: 'Name', value: ({ name }) => name },
          {
            header: 'ROOT',
            key: 'Root',
            value: ({ state }, noTrunc) => toHex(state.root).slice(0, noTrunc ? 64 : 12),
          },
          { header: 'SIZE', key: 'Size', value: ({ state }) => String(state.size) },
        ],
        ({ name }) => name,
        flags,
      );
    } finally {
      await store.close();
    }
  }
}
