import { Flags } from '@oclif/core';
import { PgCommand } from '../base.ts';
import { examine, type Finding } from '../doctor.ts';

export default class Doctor extends PgCommand {
  static override summary = 'What this machine can do, what is missing, and the command that mends it.';
  static override examples = ['<%= config.bin %> doctor', '<%= config.bin %> doctor --format json'];
  static override flags = {
    format: Flags.string({ description: 'how to show it', options: ['table', 'json'], default: 'table' }),
  };

  protected override readonly looksAtIndex = true;

  async run(): Promise<void> {
    const { flags } = await this.parse(Doctor);
    const findings = await examine(this.roots(flags));
    if (flags.format === 'json') process.stdout.write(`${JSON.stringify(findings)}\n`);
    else process.stdout.write(`${findings.map(show).join('\n')}\n${summary(findings)}\n`);
    if (findings.some((f) => f.state === 'missing')) this.exit(1);
  }
}

function show(finding: Finding): string {
  const mark = { ok: 'ok     ', optional: 'without', missing: 'MISSING' }[finding.state];
  return `${mark}  ${finding.what.padEnd(22)} ${finding.says}${finding.mend === undefined ? '' : `\n         mend: ${finding.mend}`}`;
}

function summary(findings: Finding[]): string {
  const missing = findings.filter((f) => f.state === 'missing');
  return missing.length === 0
    ? 'This machine can run pg.'
    : `${missing.length} missing: pg cannot run containers here until that is mended.`;
}
