import { Args, Flags } from '@oclif/core';
import { setIoBudget } from '../../runtime/metering.ts';
import { PgCommand } from '../base.ts';
import { forEach } from '../each.ts';
import { parseIoBudget } from '../io-budget.ts';

export default class Update extends PgCommand {
  static override summary = 'Change what containers may spend on I/O, running or not.';
  static override description = `The budget counts from when the container was made: what is spent already (pg inspect, pg stats) is part of it.`;
  static override examples = [
    '<%= config.bin %> update --io-budget read=20g,written=2g web',
    { description: 'Without a limit from now on', command: '<%= config.bin %> update --io-budget none web' },
  ];
  static override flags = {
    'io-budget': Flags.string({
      description: 'accesses, read, written, compute and amount; or none',
      helpValue: 'RESOURCE=MOST,...',
      required: true,
    }),
  };
  static override args = { container: Args.string({ description: 'name or id, one or more', required: true }) };
  static override strict = false;

  async run(): Promise<void> {
    const { argv, flags } = await this.parse(Update);
    this.needRoot('pg update');
    const roots = this.roots(flags);
    const budget = parseIoBudget(flags['io-budget']);
    process.exitCode = await forEach(argv as string[], async (ref) => {
      await setIoBudget(roots, ref, budget);
      return ref;
    });
  }
}
