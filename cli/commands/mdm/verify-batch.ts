import { Args } from '@oclif/core';
import { formatFlag, MdmCommand } from '../../mdm/command.ts';
import { stateToJson } from '../../mdm/program.ts';
import { toHex } from '../../mdm/read-json.ts';
import { verifyResult } from '../../mdm/result.ts';

export default class MdmVerifyBatch extends MdmCommand {
  static override summary = "Check a result that 'pg mdm exec' printed; no file is needed.";
  static override description = `The exit code is 0 when the proofs lead from the initial root and size to the final ones through all states and outputs in
the result, and the cost is right; else 1. Every instruction that did something must have a proof.`;
  static override examples = ['<%= config.bin %> mdm verify-batch result.json'];
  static override flags = { format: formatFlag };
  static override args = { result: Args.string({ description: 'a JSON file, or -', required: true }) };
  protected override readonly exitOfError = 1;

  async run(): Promise<void> {
    const { args, flags } = await this.parse(MdmVerifyBatch);
    const { initial, final, cost, instructions } = await verifyResult(args.result);
    if (flags.format === 'json') {
      return this.print({ initial: stateToJson(initial), final: stateToJson(final), cost, instructions });
    }
    const words = `${toHex(initial.root)} of ${initial.size} bytes -> ${toHex(final.root)} of ${final.size} bytes`;
    process.stdout.write(`${instructions} instructions: ${words}\n`);
  }
}
