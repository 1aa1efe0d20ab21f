import { relieveHousekeeper } from '../../runtime/housekeeper.ts';
import { removeUnusedBridge } from '../../runtime/network/bridge.ts';
import { readSettings } from '../../runtime/settings.ts';
import { tidy } from '../../runtime/tidy.ts';
import { openStore } from '../../store/store.ts';
import { PgCommand } from '../base.ts';
import { humanSize } from '../output.ts';

export default class Gc extends PgCommand {
  static override summary = 'Give back the space of what no image, container or mount needs any more.';
  static override description = `What is left of sectors that are mostly dead is copied together, and what was imported is compressed (compress in config.toml). The same is done in the
background after commands that bring or remove something (housekeeping in config.toml). Also removes what a crash or a failed import has left, and the network bridge if no container is connected. Safe at any time: what an import or a move
at work may rely on is left for the next time.`;
  static override examples = ['<%= config.bin %> gc'];

  async run(): Promise<void> {
    const { flags } = await this.parse(Gc);
    const roots = this.roots(flags);
    const { compress } = await readSettings(roots);
    const lock = await relieveHousekeeper(roots);
    const store = openStore(roots);
    const stop = new AbortController();
    const interrupt = (): void => stop.abort();
    process.once('SIGINT', interrupt).once('SIGTERM', interrupt);
    try {
      const done = await tidy(roots, store, compress !== 'off', undefined, stop.signal);
      const { contents, nodes, sectors, bytes, repacked, packed, waitingFor } = done;
      process.stdout.write(`Removed ${contents} contents, ${nodes} directories, ${sectors} sectors\n`);
      if (repacked > 0) process.stdout.write(`Copied together what was left of ${repacked} sectors\n`);
      if (packed !== null && packed.packed > 0)
        process.stdout.write(
          `Compressed ${packed.packed} sectors from ${humanSize(packed.bytesBefore)} to ${humanSize(packed.bytesAfter)}\n`,
        );
      if (await removeUnusedBridge(roots))
        process.stdout.write('Removed the network bridge, which nothing was connected to\n');
      process.stdout.write(
        `Total reclaimed space: ${humanSize(bytes + (packed === null ? 0 : packed.bytesBefore - packed.bytesAfter))}\n`,
      );
      if (waitingFor.length > 0) {
        process.stderr.write(
          `pg: some of it must wait for what is at work: ${waitingFor.join(', ')}\n    run pg gc again later\n`,
        );
      }
    } finally {
      process.off('SIGINT', interrupt).off('SIGTERM', interrupt);
      await store.close();
      lock.release();
    }
  }
}
