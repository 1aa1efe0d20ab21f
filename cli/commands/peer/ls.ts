import { formatAddress, listPeers, type Peer } from '../../../grid/peers.ts';
import { PgCommand } from '../../base.ts';
import { listFlags, printList } from '../../output.ts';

export default class PeerLs extends PgCommand {
  static override summary = 'List the nodes that this one knows.';
  static override examples = [
    '<%= config.bin %> peer ls',
    "<%= config.bin %> peer ls --format '{{.Name}} {{.Address}}'",
  ];
  static override flags = listFlags;

  async run(): Promise<void> {
    const { flags } = await this.parse(PeerLs);
    printList<Peer>(
      listPeers(this.roots(flags)),
      [
        { header: 'NAME', key: 'Name', value: (peer) => peer.name },
        { header: 'ADDRESS', key: 'Address', value: formatAddress },
        { header: 'ID', key: 'ID', value: (peer) => peer.id },
      ],
      (peer) => peer.id,
      flags,
    );
  }
}
