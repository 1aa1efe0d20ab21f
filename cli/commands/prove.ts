import { closeSync, openSync, writeSync } from 'node:fs';
import { Args, Flags } from '@oclif/core';
import { PgError } from '../../mdm/error.ts';
import { proveIn, type ProveOptions } from '../../runtime/proof.ts';
import { PgCommand } from '../base.ts';
import { humanSize } from '../output.ts';
import { pathOfWord, wordOfPath } from '../paths.ts';

export default class Prove extends PgCommand {
  static override summary = "Prove that a container's root holds a file, or these bytes of it.";
  static override description = `PATH[:RANGE] is a path in the container and perhaps the bytes START-END of the file (END is not included; none: to the
file's end). Without a range all its bytes are proved. Of a directory, a symlink or a device the proof shows its attributes; of a path that
does not exist, that nothing is there. The proof goes to stdout or a file; pg verify-proof checks it anywhere, without a store, and its
size is that of the range and some kilobytes. The container may run, be stopped, or never have run. What is mounted over its root, such as
volumes, is not part of it.`;
  static override examples = [
    '<%= config.bin %> prove web /etc/nginx/nginx.conf -o nginx.proof',
    '<%= config.bin %> prove db /var/lib/postgresql/base.tar:4096-8192 > range.proof',
    {
      description: 'That a file is not there',
      command: '<%= config.bin %> prove web /root/.ssh/authorized_keys -o none.proof',
    },
    '<%= config.bin %> prove web /etc/hostname | ssh other pg verify-proof -',
  ];
  static override flags = {
    output: Flags.string({ char: 'o', description: 'write the proof to FILE', helpValue: 'FILE' }),
    range: Flags.string({ description: 'the bytes, for a path that itself ends like a range', helpValue: 'START-END' }),
    follow: Flags.boolean({ char: 'L', description: 'prove what symlinks lead to; the links are not in the proof' }),
    escapes: Flags.boolean({ char: 'e', description: 'PATH has \\xHH for a byte and \\\\ for a backslash' }),
    quiet: Flags.boolean({ char: 'q', description: 'do not say on stderr what was proved' }),
  };
  static override args = {
    container: Args.string({ description: 'name or id, or a named mount that is not mounted', required: true }),
    path: Args.string({ description: 'PATH[:START-END]', required: true }),
  };

  async run(): Promise<void> {
    const { args, flags } = await this.parse(Prove);
    this.needRoot('pg prove');
    if (flags.output === undefined && process.stdout.isTTY)
      throw new PgError('BAD_USAGE', 'a proof is not text', { hint: 'write it to a file: -o FILE' });
    const { path, range } =
      flags.range === undefined ? splitRange(args.path) : { path: args.path, range: rangeOf(flags.range) };
    const options = { path: pathOfWord(path, flags.escapes), range, follow: flags.follow };
    const proof = await proveIn(this.roots(flags), args.container, options);
    const bytes = proof.pieces.reduce((sum, piece) => sum + piece.length, 0);
    await (flags.output === undefined ? writeOut(proof.pieces) : writeFile(flags.output, proof.pieces));
    if (flags.quiet) return;
    const what =
      proof.finding.entry === undefined ? `that there is no ${wordOfPath(proof.path)}` : wordOfPath(proof.path);
    const root = Buffer.from(proof.root).toString('hex');
    process.stderr.write(
      `Proved ${what} in ${humanSize(bytes)}\nroot ${root} at ${proof.finding.size} bytes, epoch ${proof.finding.claim.epoch}\n`,
    );
  }
}

/** `PATH:START-END`, `PATH:START:END`, `PATH:START-`; else all of it is a path. */
function splitRange(word: string): Pick<ProveOptions, 'range'> & { path: string } {
  const match = /^(.*):(\d+[-:]\d*)$/s.exec(word);
  return match === null ? { path: word, range: 'all' } : { path: match[1]!, range: rangeOf(match[2]!) };
}

/** BAD_RANGE. */
function rangeOf(word: string): { start: number; end: number } {
  const match = /^(\d+)[-:](\d*)$/.exec(word);
  const start = Number(match?.[1]);
  const end = match?.[2] === '' ? Infinity : Number(match?.[2]);
  if (!(start <= end))
    throw new PgError('BAD_RANGE', `${word} is no range of bytes`, {
      hint: 'START-END, END not included; START- to the end',
    });
  return { start, end };
}

async function writeOut(pieces: readonly Uint8Array[]): Promise<void> {
  for (const piece of pieces) {
    await new Promise<void>((resolve, reject) => {
      process.stdout.write(piece, (error) =>
        error ? reject(new PgError('OUTPUT', `stdout: ${error.message}`)) : resolve(),
      );
    });
  }
}

function writeFile(path: string, pieces: readonly Uint8Array[]): void {
  const fd = openOutput(path);
  try {
    for (const piece of pieces) for (let at = 0; at < piece.length;) at += writeSync(fd, piece, at);
  } finally {
    closeSync(fd);
  }
}

/** Opens a file to be written anew. PgError OUTPUT. */
function openOutput(path: string): number {
  try {
    return openSync(path, 'w');
  } catch (error) {
    throw new PgError('OUTPUT', `cannot write ${path}: ${(error as Error).message}`);
  }
}
