import { Args } from '@oclif/core';
import { fileArg, MdmCommand, quietFlag } from '../../mdm/command.ts';
import { parseRange, proveRange } from '../../mdm/range-proof.ts';
import { openTarget } from '../../mdm/target.ts';

export default class MdmProve extends MdmCommand {
  static override summary = 'Print the proof that segments are in a file, as JSON.';
  static override description = `The proof has the bytes, the root and the size of the file, and the roots of the subtrees beside the range: whoever knows
root and size can check it without the file ('pg mdm verify').`;
  static override examples = [
    { description: 'The first two segments', command: '<%= config.bin %> mdm prove disk.img 0:2 > proof.json' },
  ];
  static override flags = { quiet: quietFlag };
  static override args = {
    file: fileArg,
    range: Args.string({ description: 'START:END in segments of 64 bytes, END not included', required: true }),
  };

  async run(): Promise<void> {
    const { args, flags } = await this.parse(MdmProve);
    const range = parseRange(args.range);
    const target = await openTarget(this.roots(flags), args.file, { quiet: flags.quiet });
    try {
      this.print(proveRange(target.file, range));
    } finally {
      await target.close();
    }
  }
}
