import { collectGarbage } from '../../runtime/garbage.ts';
import { removeUnusedBridge } from '../../runtime/network/bridge.ts';
import { openStore } from '../../store/store.ts';
import { PgCommand } from '../base.ts';
import { humanSize } from '../output.ts';

export default class Gc extends PgCommand {
  static override summary = 'Give back the space of what no image, container or mount needs any more.';
  static override description = `Also removes what a crash or a failed import has left, and the network bridge if no container is connected. Safe at any time: what an import or a move
at work may rely on is left for the next time.`;
  static override examples = ['<%= config.bin %> gc'];

  async run(): Promise<void> {
    const { flags } = await this.parse(Gc);
    const roots = this.roots(flags);
    const store = openStore(roots);
    try {
      const { contents, nodes, sectors, bytes, waitingFor } = await collectGarbage(roots, store);
      process.stdout.write(`Removed ${contents} contents, ${nodes} directories, ${sectors} sectors\n`);
      if (await removeUnusedBridge(roots))
        process.stdout.write('Removed the network bridge, which nothing was connected to\n');
      process.stdout.write(`Total reclaimed space: ${humanSize(bytes)}\n`);
      if (waitingFor.length > 0) {
        process.stderr.write(
          `pg: some of it must wait for what is at work: ${waitingFor.join(', ')}\n    run pg gc again later\n`,
        );
      }
    } finally {
      await store.close();
    }
  }
}
