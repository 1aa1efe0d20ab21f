import { Args } from '@oclif/core';
import { cleanLog } from '../../runtime/clean.ts';
import { PgCommand } from '../base.ts';
import { forEach } from '../each.ts';
import { humanSize } from '../output.ts';

export default class Clean extends PgCommand {
  static override summary = "Give back now what a container's files need no more, running or not.";
  static override description = `It is done by itself while a container runs, when more than half of its log is dead (and more than 32 MiB are). Prints how many bytes of files were written
again elsewhere, and how much went back to the disk, in sectors of 4 MiB. Snapshots and --retain keep what they need, and nothing is given back of what clones
share. pg df shows what is dead.`;
  static override examples = [
    '<%= config.bin %> clean web',
    { description: 'All of them', command: '<%= config.bin %> clean $(<%= config.bin %> ps -aq)' },
  ];
  static override args = {
    container: Args.string({ description: 'name or id, or a named mount; one or more', required: true }),
  };
  static override strict = false;

  async run(): Promise<void> {
    const { argv, flags } = await this.parse(Clean);
    this.needRoot('pg clean');
    const roots = this.roots(flags);
    process.exitCode = await forEach(argv as string[], async (ref) => {
      const { name, movedBytes, givenBackBytes, damaged } = await cleanLog(roots, ref);
      if (damaged > 0)
        process.stderr.write(
          `pg: ${name}: ${damaged} damaged ranges stay where they are\n    see what is damaged: pg verify ${name}\n`,
        );
      return `${name}: moved ${humanSize(movedBytes)}, gave back ${humanSize(givenBackBytes)}`;
    });
  }
}
