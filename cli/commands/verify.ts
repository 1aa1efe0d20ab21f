import { Flags } from '@oclif/core';
import { SECTOR_BYTES } from '../../mdm/merkle.ts';
import { openStore } from '../../store/store.ts';
import { PgCommand } from '../base.ts';
import { humanSize } from '../output.ts';
import { terminalProgress } from '../progress.ts';

export default class Verify extends PgCommand {
  static override summary = 'Read everything in the store and check every checksum and root.';
  static override description = `Checks sectors, contents and directories of images. What is wrong is said on standard output, a line each, and the exit
code is 1. Nothing is changed: import the image again, or fetch it from another node.`;
  static override examples = ['<%= config.bin %> verify'];
  static override flags = {
    quiet: Flags.boolean({ char: 'q', description: 'show no progress' }),
  };

  async run(): Promise<void> {
    const { flags } = await this.parse(Verify);
    const store = openStore(this.roots(flags));
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
      for (const { message } of problems) process.stdout.write(`${message}\n`);
      damaged = problems.length > 0;
      const read = `${sectors} sectors (${humanSize(bytes)}), ${contents} contents, ${nodes} directories`;
      process.stderr.write(
        damaged ? `pg: ${problems.length} problems in ${read}\n` : `Everything is as it was written: ${read}\n`,
      );
    } finally {
      await store.close();
    }
    if (damaged) this.exit(1);
  }
}
