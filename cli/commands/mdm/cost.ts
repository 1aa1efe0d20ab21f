import { Args, Flags } from '@oclif/core';
import { costOf } from '../../../mdm/batch.ts';
import type { Cost } from '../../../mdm/cost.ts';
import { machineError } from '../../../mdm/instruction.ts';
import { decodeInstruction } from '../../../mdm/instructions/table.ts';
import { formatFlag, MdmCommand } from '../../mdm/command.ts';
import { readProgram } from '../../mdm/program.ts';

export default class MdmCost extends MdmCommand {
  static override summary = 'Print what a batch costs on a file of a given size, from its inputs alone.';
  static override description = `In the four resources of SIP1: disk accesses, bytes read, bytes written, compute (compressions). Payloads are not read.`;
  static override examples = ['<%= config.bin %> mdm cost program.json --size 10737418240'];
  static override flags = {
    format: formatFlag,
    size: Flags.string({ description: 'size of the file before it', helpValue: 'BYTES', required: true }),
  };
  static override args = { program: Args.string({ description: 'a batch as JSON, or -', required: true }) };

  async run(): Promise<void> {
    const { args, flags } = await this.parse(MdmCost);
    const size = Number(/^[0-9]{1,20}$/.test(flags.size) ? flags.size : NaN);
    if (!(size <= 2 ** 48)) throw machineError('MDM_SIZE_TOO_LARGE', `${flags.size} is no size: at most 2^48 bytes`);
    const { instructions } = await readProgram(args.program);
    const total = costOf(instructions, size);
    let now = size;
    const each = instructions.map((instruction) => {
      const { cost, sizeAfter } = decodeInstruction(instruction, now);
      now = sizeAfter;
      return { name: instruction.name, cost };
    });
    if (flags.format === 'json')
      return this.print({ size, finalSize: total.size, cost: total.cost, instructions: each });
    const line = (name: string, { accesses, read, written, compute }: Cost): string =>
      `${name.padEnd(10)}${[accesses, read, written, compute].map((n) => String(n).padStart(18)).join('')}\n`;
    process.stdout.write(
      `${'INSTRUCTION'.padEnd(16)}    ACCESSES              READ           WRITTEN           COMPUTE\n`,
    );
    for (const { name, cost } of each) process.stdout.write(line(name, cost));
    process.stdout.write(line('total', total.cost));
  }
}
