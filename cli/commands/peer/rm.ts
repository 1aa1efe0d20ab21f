import { removePeer } from '../../../grid/peers.ts';
import { PgCommand } from '../../base.ts';

export default class PeerRm extends PgCommand {
  static override summary = 'Forget nodes: they can no longer connect to this one, nor be moved to.';
  static override examples = ['<%= config.bin %> peer rm node-b'];
  static override strict = false;
  static override usage = 'peer rm NAME...';

  async run(): Promise<void> {
    const { argv, flags } = await this.parse(PeerRm);
    if (argv.length === 0) this.error("name a peer: 'pg peer ls' lists them", { exit: 125 });
    for (const name of argv) {
      removePeer(this.roots(flags), String(name));
      process.stdout.write(`${String(name)}\n`);
    }
  }
}
