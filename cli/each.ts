import { isPgError } from '../mdm/error.ts';
import { visible } from '../mdm/visible.ts';

/**
 * Does something to each of the containers named on a command line, as docker does: one that fails is reported and the others are done all the
 * same; what `action` returns is printed. The exit code: 0, or 1 when one failed.
 */
export async function forEach(
  refs: readonly string[],
  action: (ref: string) => Promise<string | void>,
): Promise<number> {
  let failed = 0;
  for (const ref of refs) {
    try {
      const line = await action(ref);
      if (line !== undefined) process.stdout.write(`${line}\n`);
    } catch (error) {
      if (!(error instanceof Error)) throw error;
      if (process.env['PG_DEBUG']) process.stderr.write(`${visible(String(error.stack))}\n`);
      process.stderr.write(`pg: ${visible(error.message)}\n`);
      if (isPgError(error) && error.hint !== undefined) process.stderr.write(`    ${visible(error.hint)}\n`);
      failed = 1;
    }
  }
  return failed;
}
