import { Flags } from '@oclif/core';
import { loadIdentity } from '../../../grid/identity.ts';
import { reachableAt } from '../../../runtime/node-control.ts';
import { nodeStatus } from '../../../runtime/node.ts';
import { PgCommand } from '../../base.ts';

export default class NodeId extends PgCommand {
  static override summary = "This node's id and address: what another node needs to know it.";
  static override description =
    'The identity is made the first time it is asked for. The id is public; the key behind it stays in the data directory.';
  static override examples = ['<%= config.bin %> node id', '<%= config.bin %> node id --quiet'];
  static override flags = {
    quiet: Flags.boolean({ char: 'q', description: 'the id only' }),
  };

  async run(): Promise<void> {
    const { flags } = await this.parse(NodeId);
    const roots = this.roots(flags);
    const { id } = loadIdentity(roots);
    process.stdout.write(`${id}\n`);
    if (flags.quiet) return;
    const status = nodeStatus(roots);
    const addresses = status === undefined ? [] : reachableAt(status.address);
    if (status === undefined) process.stdout.write("its daemon does not run: 'pg node start --detach'\n");
    for (const address of addresses) process.stdout.write(`on the other host: pg peer add NAME ${address} ${id}\n`);
  }
}
