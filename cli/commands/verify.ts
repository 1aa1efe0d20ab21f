import { Flags } from '@oclif/core';
import { SECTOR_BYTES } from '../../mdm/merkle.ts';
import { openStore } from '../../store/store.ts';
import { verifyLogs } from '../../runtime/verify-logs.ts';
import { PgCommand } from '../base.ts';
import { humanSize } from '../output.ts';
import { terminalProgress } from '../progress.ts';

export default class Verify extends PgCommand {
  static override summary =
    'Read everything in the store, and the logs of all containers, and check every checksum and root.';
  static override description = `Checks sectors, contents and directories of images, and what containers wrote. What is wrong is said on standard output, a line each, and the exit
code is 1. Nothing is changed: import the image again, or fetch it
from another node.`;
  static override examples = ['<%= config.bin %> verify'];
  static override flags = {
    quiet: Flags.boolean({ char: 'q', description: 'show no progress' }),
  };

  async run(): Promise<void> {
    const { flags } = await this.parse(Verify);
    const roots = this.roots(flags);
    const store = openStore(roots);
    const progress = terminalProgress(flags.quiet);
    let damaged = false;
    try {
      let begun = false;
      const { sectors, contents, nodes, bytes, problems } = await store.verify(({ totalSectors }) => {
        if (!begun) progress.start('sectors', 'sectors', totalSectors * SECTOR_BYTES);
        begun = true;
        progress.advance('sectors', SECTOR_BYTES);
      });
      progress.end();
      const logs = await verifyLogs(roots);
      const found = [...problems.map(({ message }) => message), ...logs.problems];
      for (const message of found) process.stdout.write(`${message}\n`);
      damaged = found.length > 0;
      const read = `${sectors} sectors (${humanSize(bytes)}), ${contents} contents, ${nodes} directories, ${logs.logs} logs (${humanSize(logs.bytes)})`;
      process.stderr.write(
        damaged ? `pg: ${found.length} problems in ${read}\n` : `Everything is as it was written: ${read}\n`,
      );
    } finally {
      await store.close();
    }
    if (damaged) this.exit(1);
  }
}
