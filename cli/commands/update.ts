import { Args, Flags } from '@oclif/core';
import { replaceDetachedServer } from '../../fs/detached.ts';
import { ownProgram } from '../../fs/server-process.ts';
import { PgError } from '../../mdm/error.ts';
import { ask } from '../../runtime/containers.ts';
import { setIoBudget } from '../../runtime/metering.ts';
import { setRetention } from '../../runtime/retain.ts';
import { PgCommand } from '../base.ts';
import { resolveContainer } from '../../runtime/names.ts';
import { forEach } from '../each.ts';
import { parseIoBudget } from '../io-budget.ts';
import { parseRetain } from '../retain.ts';

export default class Update extends PgCommand {
  static override summary =
    'Change what containers may spend on I/O, and how much of their history is kept, running or not; put this pg under the files of running ones.';
  static override description = `The budget counts from when the container was made: what is spent already (pg inspect, pg stats) is part of it.

With --restart-fs a new process, of this pg, serves the files of a running container, or of what pg mount has mounted on a directory, from now on; programs see a pause, nothing else.`;
  static override examples = [
    '<%= config.bin %> update --io-budget read=20g,written=2g web',
    { description: 'A week of history, or a gigabyte', command: '<%= config.bin %> update --retain 1g,7d web' },
    { description: 'Without a limit from now on', command: '<%= config.bin %> update --io-budget none web' },
    {
      description: 'After an update of pg, without stopping the container',
      command: '<%= config.bin %> update --restart-fs web',
    },
    { description: 'The same for a mount', command: '<%= config.bin %> update --restart-fs /mnt' },
  ];
  static override flags = {
    'io-budget': Flags.string({
      description: 'accesses, read, written, compute and amount; or none',
      helpValue: 'RESOURCE=MOST,...',
    }),
    retain: Flags.string({
      description: 'history kept behind what it is now, besides snapshots: a size, a time, both, or none',
      helpValue: '1g|7d|1g,7d|none',
    }),
    'restart-fs': Flags.boolean({
      description: 'have a new process serve the files of a running container or a mount',
    }),
  };
  static override args = {
    container: Args.string({ description: 'name or id, one or more; with --restart-fs also DIR', required: true }),
  };
  static override strict = false;

  async run(): Promise<void> {
    const { argv, flags } = await this.parse(Update);
    this.needRoot('pg update');
    const roots = this.roots(flags);
    const budget = flags['io-budget'] === undefined ? undefined : parseIoBudget(flags['io-budget']);
    const retain = flags.retain === undefined ? undefined : parseRetain(flags.retain);
    const restarts = flags['restart-fs'] === true;
    if (budget === undefined && retain === undefined && !restarts) {
      throw new PgError('BAD_USAGE', 'nothing to update', {
        hint: 'give --io-budget RESOURCE=MOST, --retain SIZE,TIME or --restart-fs',
      });
    }
    const mountPoint = (argv as string[]).find(isMountPoint);
    if (mountPoint !== undefined && (budget !== undefined || retain !== undefined)) {
      throw new PgError('BAD_USAGE', `${mountPoint} is a directory, which has no budget and no history of its own`, {
        hint: 'only --restart-fs takes one',
      });
    }
    process.exitCode = await forEach(argv as string[], async (ref) => {
      if (budget !== undefined) await setIoBudget(roots, ref, budget);
      if (retain !== undefined) setRetention(roots, ref, retain);
      if (restarts && isMountPoint(ref)) await replaceDetachedServer(roots, ref);
      else if (restarts) await ask(roots, resolveContainer(roots, ref), { op: 'replaceFs', program: ownProgram() });
      return ref;
    });
  }
}

/** No container's name has a slash, or begins with a dot. */
const isMountPoint = (ref: string): boolean => ref.includes('/') || ref.startsWith('.');
