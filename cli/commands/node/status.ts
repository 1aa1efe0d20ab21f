import { Flags } from '@oclif/core';
import { formatAddress, listPeers } from '../../../grid/peers.ts';
import { nodeStatus } from '../../../runtime/node.ts';
import { PgCommand } from '../../base.ts';

export default class NodeStatus extends PgCommand {
  static override summary = 'Whether the node daemon runs, and where it listens. Exit code 1 when it does not.';
  static override examples = ['<%= config.bin %> node status', '<%= config.bin %> node status --format json'];
  static override flags = {
    format: Flags.string({ description: 'how to show it', options: ['text', 'json'], default: 'text' }),
  };

  async run(): Promise<void> {
    const { flags } = await this.parse(NodeStatus);
    const roots = this.roots(flags);
    const status = nodeStatus(roots);
    const peers = listPeers(roots).length;
    if (flags.format === 'json') {
      const { pid, id, startedAt, address } = status ?? {};
      const shown = {
        running: status !== undefined,
        pid,
        id,
        startedAt,
        address: address && formatAddress(address),
        peers,
      };
      process.stdout.write(`${JSON.stringify(shown)}\n`);
    } else if (status === undefined) process.stdout.write('not running\n');
    else {
      const line = `running: pid ${status.pid}, listens on ${formatAddress(status.address)} since ${status.startedAt}`;
      process.stdout.write(`${line}\nid ${status.id}\n${peers} known peer${peers === 1 ? '' : 's'}\n`);
    }
    if (status === undefined) this.exit(1);
  }
}
