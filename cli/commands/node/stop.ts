import { stopNode } from '../../../runtime/node-control.ts';
import { PgCommand } from '../../base.ts';

export default class NodeStop extends PgCommand {
  static override summary = 'End the node daemon. Containers go on running.';
  static override examples = ['<%= config.bin %> node stop'];

  async run(): Promise<void> {
    const { flags } = await this.parse(NodeStop);
    process.stdout.write((await stopNode(this.roots(flags))) ? 'stopped\n' : 'not running\n');
  }
}
