import { Args, Flags } from '@oclif/core';
import { isPgError } from '../../mdm/error.ts';
import { PgCommand } from '../base.ts';
import { EXIT_ENGINE } from '../exit-codes.ts';

/** What is said of FILE in every command. */
export const fileArg = Args.string({
  description: "a file, or 'store:NAME' for one of the machine's files in pg's store",
  required: true,
});

export const formatFlag = Flags.string({ description: 'how to print it', options: ['text', 'json'], default: 'text' });
export const quietFlag = Flags.boolean({ char: 'q', description: 'show no progress' });

/** A command of `pg mdm`: its errors begin with their code, which programs can tell them by. */
export abstract class MdmCommand extends PgCommand {
  /** What errors exit with. */
  protected readonly exitOfError: number = EXIT_ENGINE;

  protected override async catch(error: Error & { exitCode?: number; code?: string }): Promise<void> {
    if (!isPgError(error)) return super.catch(error);
    process.stderr.write(`pg: ${error.code}: ${error.message}\n`);
    if (error.hint !== undefined) process.stderr.write(`    ${error.hint}\n`);
    this.exit(this.exitOfError);
  }

  protected print(value: object): void {
    process.stdout.write(`${JSON.stringify(value, null, 2)}\n`);
  }
}
