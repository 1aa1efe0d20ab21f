import { Args } from '@oclif/core';
import { Accumulator } from '../../../mdm/accumulator.ts';
import type { State } from '../../../mdm/instruction.ts';
import { formatFlag, MdmCommand, quietFlag } from '../../mdm/command.ts';
import { stateToJson } from '../../mdm/program.ts';
import { openTarget } from '../../mdm/target.ts';

export default class MdmRoot extends MdmCommand {
  static override summary = 'Print the Merkle root and the size of a file.';
  static override description = `BLAKE2b-256 over segments of 64 bytes in the shape of RFC 6962, as Sia has it. The file is read once, in bounded memory.`;
  static override examples = [
    '<%= config.bin %> mdm root disk.img',
    { description: 'As JSON', command: '<%= config.bin %> mdm root --format json disk.img' },
    { description: 'Of what comes through a pipe', command: 'tar c . | <%= config.bin %> mdm root -' },
  ];
  static override flags = { format: formatFlag, quiet: quietFlag };
  static override args = {
    file: Args.string({
      description: "a file, 'store:NAME' for one of the machine's files in pg's store, or - for standard input",
      required: true,
    }),
  };

  async run(): Promise<void> {
    const { args, flags } = await this.parse(MdmRoot);
    let state: State;
    if (args.file === '-') {
      const accumulator = new Accumulator();
      for await (const chunk of process.stdin) accumulator.append(chunk as Buffer);
      state = { root: accumulator.root(), size: accumulator.size };
    } else {
      const target = await openTarget(this.roots(flags), args.file, { quiet: flags.quiet });
      ({ state } = target.file);
      await target.close();
    }
    const { root, size } = stateToJson(state);
    if (flags.format === 'json') this.print({ root, size });
    else process.stdout.write(`${root} ${size}\n`);
  }
}
