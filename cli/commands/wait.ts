import { Args } from '@oclif/core';
import { waitContainer } from '../../runtime/containers.ts';
import { PgCommand } from '../base.ts';
import { forEach } from '../each.ts';

export default class Wait extends PgCommand {
  static override summary = 'Wait until containers end, and print their exit codes.';
  static override examples = ['<%= config.bin %> wait job'];
  static override args = { container: Args.string({ description: 'name or id, one or more', required: true }) };
  static override strict = false;

  async run(): Promise<void> {
    const { argv, flags } = await this.parse(Wait);
    const roots = this.roots(flags);
    process.exitCode = await forEach(argv as string[], async (ref) => String(await waitContainer(roots, ref)));
  }
}
