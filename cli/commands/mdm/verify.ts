import { Args, Flags } from '@oclif/core';
import { PgError } from '../../../mdm/error.ts';
import { formatFlag, MdmCommand } from '../../mdm/command.ts';
import { stateToJson } from '../../mdm/program.ts';
import { verifyRange } from '../../mdm/range-proof.ts';
import { toHex } from '../../mdm/read-json.ts';

export default class MdmVerify extends MdmCommand {
  static override summary = "Check a proof that 'pg mdm prove' wrote; no file is needed.";
  static override description = `The exit code is 0 when the bytes in the proof are in the file with the root and the size in the proof, else 1. Compare
these with what you know of the file, or name it by --root-is and --size-is.`;
  static override examples = ['<%= config.bin %> mdm verify proof.json'];
  static override flags = {
    format: formatFlag,
    'root-is': Flags.string({ description: 'the root that the file has', helpValue: 'HEX' }),
    'size-is': Flags.integer({ description: 'the size that the file has', helpValue: 'BYTES', min: 0 }),
  };
  static override args = { proof: Args.string({ description: 'a JSON file, or -', required: true }) };
  protected override readonly exitOfError = 1;

  async run(): Promise<void> {
    const { args, flags } = await this.parse(MdmVerify);
    const { start, end, bytes, ...state } = await verifyRange(args.proof);
    const { root, size } = stateToJson(state);
    const [expectedRoot, expectedSize] = [flags['root-is']?.toLowerCase() ?? root, flags['size-is'] ?? size];
    if (expectedRoot !== toHex(state.root) || expectedSize !== size) {
      throw new PgError('MDM_WRONG_STATE', `the proof is of a file with root ${root} and ${size} bytes`);
    }
    if (flags.format === 'json') this.print({ root, size, start, end });
    else process.stdout.write(`segments ${start}:${end} (${bytes} bytes) are in ${root} of ${size} bytes\n`);
  }
}
