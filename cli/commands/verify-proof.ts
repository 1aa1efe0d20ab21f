import { closeSync, ftruncateSync, openSync, readFileSync, writeSync } from 'node:fs';
import { Args, Flags } from '@oclif/core';
import { type Verified, verifyProof } from '../../fs/proof/proof-file.ts';
import { S_IFDIR, S_IFLNK, S_IFMT, S_IFREG } from '../../layers/trie.ts';
import { isPgError, PgError } from '../../mdm/error.ts';
import { PgCommand } from '../base.ts';
import { printObjects } from '../output.ts';
import { wordOfPath } from '../paths.ts';

/** Zeros that a pipe gets where a file has a hole. */
const ZEROS = Buffer.alloc(1 << 20);

export default class VerifyProof extends PgCommand {
  static override summary = 'Check a proof of pg prove, without a store.';
  static override description = `Says what it proves: whose files, at which position of their log, which path, its attributes, which bytes. Everything follows from
the root of the log: compare it with one that you trust (pg log, a migration's report) or give it as --root. Exit code 1 when the proof
does not hold. docs/formats/proof.md has the format, for checking it with other programs.`;
  static override examples = [
    '<%= config.bin %> verify-proof nginx.proof',
    '<%= config.bin %> verify-proof --root c2f0…64-digits nginx.proof --output nginx.conf',
    '<%= config.bin %> verify-proof --format json - < range.proof',
  ];
  static override flags = {
    root: Flags.string({
      description: 'the root (64 hex digits) that the log must have',
      helpValue: 'HEX',
      helpGroup: 'FLAGS',
    }),
    output: Flags.string({ char: 'o', description: 'write the proved bytes to FILE (- is stdout)', helpValue: 'FILE' }),
    format: Flags.string({ description: "'json' or a Go template such as '{{.Root}}'", helpValue: 'FORMAT' }),
  };
  static override args = { file: Args.string({ description: 'the proof; - is stdin', required: true }) };

  async run(): Promise<void> {
    const { args, flags } = await this.parse(VerifyProof);
    if (flags.output === '-' && flags.format !== undefined)
      throw new PgError('BAD_USAGE', 'stdout cannot take both the bytes and --format', { hint: '--output FILE' });
    const expected = flags.root === undefined ? undefined : rootOfWord(flags.root);
    const verified = this.checked(readProof(args.file), expected);
    if (flags.output !== undefined) await writeBytes(verified, flags.output);
    if (flags.format !== undefined) return printObjects([objectOf(verified, expected !== undefined)], flags.format);
    const text = describe(verified, expected !== undefined);
    (flags.output === '-' ? process.stderr : process.stdout).write(text);
  }

  /** A proof that does not hold is an answer, with exit code 1, and no failure of pg. */
  private checked(bytes: Buffer, expected: string | undefined): Verified {
    try {
      const verified = verifyProof(bytes);
      const root = hex(verified.root);
      if (expected === undefined || root === expected) return verified;
      throw new PgError('PROOF_REFUTED', `the proof is of another root: ${root}, not ${expected}`);
    } catch (error) {
      if (!isPgError(error) || error.code === 'PROOF_VERSION') throw error;
      process.stderr.write(`pg: ${error.message}\n`);
      return this.exit(1);
    }
  }
}

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');

function rootOfWord(word: string): string {
  if (!/^[0-9a-fA-F]{64}$/.test(word))
    throw new PgError('BAD_USAGE', `${word} is no root: 64 hex digits`, { hint: 'pg log --no-trunc shows roots' });
  return word.toLowerCase();
}

function readProof(path: string): Buffer {
  try {
    return readFileSync(path === '-' ? 0 : path);
  } catch (error) {
    throw new PgError('INPUT', `cannot read ${path === '-' ? 'stdin' : path}: ${(error as Error).message}`);
  }
}

const TYPES: Record<number, string> = { [S_IFREG]: 'file', [S_IFDIR]: 'directory', [S_IFLNK]: 'symlink' };
const typeOf = (mode: number): string => TYPES[mode & S_IFMT] ?? 'special file';
const pathOf = (names: readonly { name: string }[]): string => `/${names.map(({ name }) => name).join('/')}`;

/** `container/ID` in words. */
function subjectOf(label: string): { kind: string; name: string } {
  const at = label.indexOf('/');
  return { kind: label.slice(0, Math.max(0, at)), name: label.slice(at + 1) };
}

/** What was proved, for programs. */
function objectOf(verified: Verified, rootChecked: boolean): object {
  const { claim, size, root, entry, depth, question } = verified;
  const { kind, name } = subjectOf(claim.label);
  const path = pathOf(question.path);
  const attributes = entry && {
    Type: typeOf(entry.mode),
    Mode: `0${(entry.mode & 0o7777).toString(8)}`,
    Uid: entry.uid,
    Gid: entry.gid,
    Size: entry.size,
    Modified: modified(entry),
    ...(entry.symlink === undefined ? {} : { Target: wordOfPath(Buffer.from(entry.symlink).toString('latin1')) }),
    ...(entry.child === undefined ? {} : { Entries: entry.child.entries }),
    Xattrs: Object.fromEntries([...(entry.xattrs ?? [])].map(([key, value]) => [wordOfPath(key), hex(value)])),
  };
  return {
    Kind: wordOfPath(kind),
    Id: wordOfPath(name),
    Epoch: claim.epoch,
    LogSize: size,
    Root: hex(root),
    RootChecked: rootChecked,
    FilesAt: claim.size,
    NamespaceRoot: hex(claim.root),
    Path: wordOfPath(path),
    PathHex: Buffer.from(path, 'latin1').toString('hex'),
    Exists: entry !== undefined,
    ...(entry === undefined ? { Missing: wordOfPath(pathOf(question.path.slice(0, depth + 1))) } : attributes),
    ...(question.range === undefined ? {} : { Start: question.range.start, End: question.range.end }),
  };
}

const modified = ({ mtimeSec, mtimeNsec }: { mtimeSec: number; mtimeNsec: number }): string => {
  const time = new Date(mtimeSec * 1000 + Math.floor(mtimeNsec / 1e6));
  return Number.isNaN(time.getTime()) ? `${mtimeSec} s` : time.toISOString();
};

/** What was proved, in words. */
function describe(verified: Verified, rootChecked: boolean): string {
  const { claim, size, root, entry, depth, question } = verified;
  const { kind, name } = subjectOf(claim.label);
  const path = wordOfPath(pathOf(question.path));
  const lines: [string, string][] = [
    [wordOfPath(kind), wordOfPath(name)],
    ['position', `epoch ${claim.epoch}, ${size} bytes of log, root ${hex(root)}`],
    [
      'root',
      rootChecked
        ? 'the one that was given'
        : 'NOT CHECKED against anything you trust: compare it with pg log, or give --root',
    ],
    ['files as of', `${claim.size} bytes of log`],
    ['path', path],
  ];
  if (entry === undefined) {
    lines.push(['there is', `nothing: no ${wordOfPath(pathOf(question.path.slice(0, depth + 1)))}`]);
  } else {
    const mode = (entry.mode & 0o7777).toString(8).padStart(4, '0');
    const sizes =
      (entry.mode & S_IFMT) === S_IFREG
        ? `, ${entry.size} bytes`
        : entry.child === undefined
          ? ''
          : `, ${entry.child.entries} entries`;
    lines.push([
      'there is',
      `a ${typeOf(entry.mode)}, mode ${mode}, uid ${entry.uid}, gid ${entry.gid}${sizes}, modified ${modified(entry)}`,
    ]);
    if (entry.symlink !== undefined) lines.push(['target', wordOfPath(Buffer.from(entry.symlink).toString('latin1'))]);
    for (const [key, value] of entry.xattrs ?? []) lines.push(['xattr', `${wordOfPath(key)} = ${hex(value)}`]);
  }
  if (question.range !== undefined) lines.push(['bytes', `${question.range.start} up to ${question.range.end}`]);
  const width = Math.max(...lines.map(([key]) => key.length));
  return `The proof holds.\n${lines.map(([key, value]) => `  ${key.padEnd(width)}  ${value}\n`).join('')}`;
}

/** Writes the proved bytes; where a file has holes they stay holes. */
async function writeBytes({ segments, question }: Verified, path: string): Promise<void> {
  if (question.range === undefined)
    throw new PgError('BAD_USAGE', 'the proof shows no bytes', { hint: 'prove a file, with a range or without' });
  const { start, end } = question.range;
  if (path === '-') {
    for (const { length, from } of segments) {
      for (let done = 0; done < length; done += ZEROS.length) {
        const bytes = Math.min(ZEROS.length, length - done);
        await writeOut(from === undefined ? ZEROS.subarray(0, bytes) : from.tree.read(from.at + done, bytes));
      }
    }
    return;
  }
  const fd = openSync(path, 'w');
  try {
    ftruncateSync(fd, end - start);
    for (const segment of segments) {
      if (segment.from === undefined) continue;
      const bytes = segment.from.tree.read(segment.from.at, segment.length);
      for (let at = 0; at < bytes.length;)
        at += writeSync(fd, bytes, at, bytes.length - at, segment.start - start + at);
    }
  } finally {
    closeSync(fd);
  }
}

function writeOut(bytes: Uint8Array): Promise<void> {
  return new Promise((resolve, reject) => {
    process.stdout.write(bytes, (error) =>
      error ? reject(new PgError('OUTPUT', `stdout: ${error.message}`)) : resolve(),
    );
  });
}
