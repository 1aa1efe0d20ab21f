import { Args, Flags } from '@oclif/core';
import type { BatchResult } from '../../../mdm/batch.ts';
import { executeBatchArriving, type Payload } from '../../../mdm/batch-arriving.ts';
import { isPgError } from '../../../mdm/error.ts';
import type { State } from '../../../mdm/instruction.ts';
import { fileArg, MdmCommand, quietFlag } from '../../mdm/command.ts';
import { openPayload, parseBudget, payloadLength, type Program, readProgram } from '../../mdm/program.ts';
import { checkResultSize, resultToJson } from '../../mdm/result.ts';
import { openTarget, type Target } from '../../mdm/target.ts';

export default class MdmExec extends MdmCommand {
  static override summary = 'Execute a batch of instructions on a file, wholly or not at all.';
  static override description = `PROGRAM is JSON (docs/formats/mdm-json.md): instructions with their inputs, whether a proof is wanted, and payloads in hex, in
base64 or as '@FILE'. The result, as JSON on standard output, has outputs, proofs, costs, and root and size before and after; 'pg
mdm verify-batch' checks it. An ordinary file is replaced by a changed copy of itself when the batch is committed: nobody sees half
of it, also not after a crash. Ctrl-C interrupts the batch and leaves the file as it was. Errors print the result too, which
says the error's code and what the batch is charged, and exit 125.`;
  static override examples = [
    '<%= config.bin %> mdm exec program.json disk.img > result.json',
    {
      description: "On a file in pg's store, made if it is not there",
      command: '<%= config.bin %> mdm exec --create program.json store:ledger',
    },
    {
      description: 'Refused before it runs if it would cost more',
      command: '<%= config.bin %> mdm exec --budget written=65536,compute=5000 program.json disk.img',
    },
  ];
  static override flags = {
    budget: Flags.string({
      description: 'accesses=N,read=N,written=N,compute=N, or some of them: what the batch may cost at most',
      helpValue: 'BUDGET',
    }),
    create: Flags.boolean({ description: "make a file of pg's store that is not there" }),
    quiet: quietFlag,
  };
  static override args = {
    program: Args.string({ description: 'a batch as JSON, or -', required: true }),
    file: fileArg,
  };

  async run(): Promise<void> {
    const { args, flags } = await this.parse(MdmExec);
    const budget = flags.budget === undefined ? undefined : parseBudget(flags.budget);
    const program = await readProgram(args.program);
    const interrupt = new AbortController();
    let signal: NodeJS.Signals = 'SIGINT';
    const onSignal = (came: NodeJS.Signals): void => {
      signal = came;
      interrupt.abort();
    };
    process.once('SIGINT', onSignal).once('SIGTERM', onSignal);
    let target: Target;
    try {
      target = await openTarget(this.roots(flags), args.file, {
        quiet: flags.quiet,
        signal: interrupt.signal,
        writable: true,
        create: flags.create,
        readsStore: program.instructions.some(({ name }) => name === 'ReadRoot'),
      });
    } catch (error) {
      if (!interrupt.signal.aborted || isPgError(error)) throw error;
      process.stderr.write('pg: interrupted before the batch began\n');
      return endBy(signal);
    }
    try {
      const initial = program.initial ?? target.file.state;
      checkResultSize(program.instructions, initial.size);
      const { result, payloads } = await execute(target, program, initial, { budget, signal: interrupt.signal });
      this.print(resultToJson(initial, program.instructions, payloads, result));
      if ('error' in result) throw result.error;
      if (result.outcome === 'interrupted') endBy(signal);
    } finally {
      await target.close();
    }
  }
}

/** Ends the process by the signal that it has heard, at once: a read of a pipe into which nobody writes keeps it from ending otherwise. */
function endBy(signal: NodeJS.Signals): void {
  process.removeAllListeners(signal);
  process.kill(process.pid, signal);
}

type Options = Pick<NonNullable<Parameters<typeof executeBatchArriving>[3]>, 'signal'> & {
  budget: ReturnType<typeof parseBudget> | undefined;
};

/** Executes the program; keeps the payloads of instructions that want a proof, for the result. */
async function execute(
  { file }: Target,
  { instructions, payloads }: Program,
  initial: State,
  { budget, signal }: Options,
): Promise<{ result: BatchResult; payloads: (Uint8Array | undefined)[] }> {
  const kept: (Uint8Array | undefined)[] = instructions.map(() => undefined);
  const arriving = function* (): Generator<Payload> {
    for (const [i, payload] of payloads.entries()) {
      const opened = openPayload(payload);
      if (instructions[i]!.proofRequired && opened instanceof Uint8Array) kept[i] = opened;
      yield instructions[i]!.proofRequired && opened !== undefined && !(opened instanceof Uint8Array)
        ? keeping(opened, (bytes) => (kept[i] = bytes))
        : opened;
    }
  };
  const result = await executeBatchArriving(file, { initial, instructions }, arriving(), {
    ...(budget === undefined ? {} : { budget }),
    ...(signal === undefined ? {} : { signal }),
    memory: Math.floor(process.availableMemory() / 4),
    payloadLengths: payloads.map(payloadLength),
  });
  return { result, payloads: kept };
}

/** What comes, and at its end all of it at once for `keep`. */
async function* keeping(
  source: AsyncIterable<Uint8Array>,
  keep: (bytes: Uint8Array) => void,
): AsyncGenerator<Uint8Array> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of source) {
    chunks.push(chunk);
    yield chunk;
  }
  keep(Buffer.concat(chunks));
}
