import { Command, Flags } from '@oclif/core';
import { isPgError, PgError } from '../mdm/error.ts';
import { visible } from '../mdm/visible.ts';
import { trustIndex } from '../store/index-check.ts';
import { resolveRoots, type Roots } from '../store/paths.ts';
import { EXIT_ENGINE } from './exit-codes.ts';

const EXIT_OF_CODE: Record<string, number> = { COMMAND_NOT_EXECUTABLE: 126, COMMAND_NOT_FOUND: 127 };

/** What every pg command has: `--root`, and errors that say what was wrong, where, and what to do next. */
export abstract class PgCommand extends Command {
  static override baseFlags = {
    root: Flags.string({
      description: 'keep all data below DIR instead of /var/lib/pg, /run/pg and /etc/pg',
      helpValue: 'DIR',
      env: 'PG_ROOT',
      helpGroup: 'GLOBAL',
    }),
  };

  /** Where errors go instead of stderr, as words: commands that write events set it. */
  protected errorEvents: ((error: { code?: string; message: string; hint?: string }) => void) | undefined;

  /** It looks itself whether the index is whole. */
  protected readonly looksAtIndex: boolean = false;

  /** The directories that this call works in. CORRUPT_INDEX when another call has died and the index is damaged. */
  protected roots(flags: { root?: string | undefined }): Roots {
    const roots = resolveRoots(flags.root, process.env, process.getuid?.() ?? 0);
    if (!this.looksAtIndex) trustIndex(roots);
    return roots;
  }

  protected override async catch(
    error: Error & { exitCode?: number; oclif?: { exit?: number }; code?: string },
  ): Promise<void> {
    if (error.oclif?.exit !== undefined && error.code === 'EEXIT') throw error;
    if (process.env['PG_DEBUG']) process.stderr.write(`${visible(error.stack ?? error.message)}\n`);
    const { message: text, hint } = isPgError(error) ? error : usageError(error, this.id ?? '');
    const message = visible(text);
    const shownHint = hint === undefined ? undefined : visible(hint);
    if (this.errorEvents !== undefined) {
      const code = isPgError(error) ? { code: error.code } : {};
      this.errorEvents({ ...code, message, ...(shownHint === undefined ? {} : { hint: shownHint }) });
    } else {
      process.stderr.write(`pg: ${message}\n`);
      if (shownHint !== undefined) process.stderr.write(`    ${shownHint}\n`);
    }
    this.exit(isPgError(error) ? (EXIT_OF_CODE[error.code] ?? EXIT_ENGINE) : EXIT_ENGINE);
  }

  /** Refuses to go on without root, saying so. */
  protected needRoot(what: string): void {
    if (process.getuid?.() !== 0) {
      throw new PgError('NEEDS_ROOT', `${what} needs root (it mounts filesystems and makes namespaces)`, {
        hint: `run it as root: sudo pg ${this.id ?? ''}`.trimEnd(),
      });
    }
  }
}

/** What oclif says of a command line, in pg's words: it does not know that flags stand before the image, and names no command. */
function usageError(error: Error & { args?: unknown }, command: string): { message: string; hint?: string } {
  const lines = error.message.split('\n');
  if (lines.at(-1) !== 'See more help with --help') return { message: error.message };
  const hint = `pg ${command.replaceAll(':', ' ')} --help shows its arguments and flags`;
  if (!lines[0]!.startsWith('Missing') || !Array.isArray(error.args))
    return { message: lines.slice(0, -1).join('\n'), hint };
  const names = (error.args as { name: string }[]).map(({ name }) => name.toUpperCase());
  return { message: `pg ${command.replaceAll(':', ' ')} needs ${names.join(' and ')}`, hint };
}
