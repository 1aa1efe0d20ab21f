import { resolve } from 'node:path';
import { Args, Flags } from '@oclif/core';
import { PgError } from '../../mdm/error.ts';
import { withContainerRoot } from '../../runtime/containers.ts';
import { withRootAt } from '../../runtime/history.ts';
import { copyBetween, packFrom, type Place, unpackTo } from '../../runtime/copy/copy.ts';
import { PgCommand } from '../base.ts';
import { parsePlace } from '../place.ts';

export default class Cp extends PgCommand {
  static override summary = 'Copy files between a container and the host.';
  static override description = `One of the two is CONTAINER:PATH (copied from, also CONTAINER@POSITION:/PATH); the other a path here, or - for a tar on stdin or stdout. A directory is copied
whole; SRC/. copies what is in it. The container need not run. Copies into a container are root's, copies here the caller's, without
set-user-id bits and devices, unless -a keeps all of it.`;
  static override examples = [
    '<%= config.bin %> cp web:/etc/nginx ./nginx',
    '<%= config.bin %> cp index.html web:/usr/share/nginx/html/',
    '<%= config.bin %> cp web:/var/log - | tar tv',
    { description: 'As it was an hour ago', command: '<%= config.bin %> cp web@-1h:/etc/nginx ./nginx' },
  ];
  static override flags = {
    archive: Flags.boolean({ char: 'a', description: 'keep owners, set-user-id bits and devices' }),
    'follow-link': Flags.boolean({ char: 'L', description: 'follow a symlink that SRC is' }),
  };
  static override args = {
    source: Args.string({ description: 'CONTAINER[@POSITION]:PATH, a path, or -', required: true }),
    destination: Args.string({ description: 'CONTAINER:PATH, a path, or -', required: true }),
  };

  async run(): Promise<void> {
    const { args, flags } = await this.parse(Cp);
    this.needRoot('pg cp');
    const roots = this.roots(flags);
    const source = inContainer(args.source);
    const destination = inContainer(args.destination);
    if ((source === undefined) === (destination === undefined)) {
      throw new PgError('BAD_USAGE', 'one of source and destination must be CONTAINER:PATH', {
        hint: 'a path here with a colon in it begins with ./ or /',
      });
    }
    if (source !== undefined) {
      const { container, position } = source;
      const withRoot = (action: (rootPath: string) => Promise<void>): Promise<void> =>
        position === undefined
          ? withContainerRoot(roots, container, true, action)
          : withRootAt(roots, container, position, action);
      await withRoot(async (rootPath) => {
        const from = { rootPath, path: source.path };
        const own = { uid: process.getuid!(), gid: process.getgid!() };
        if (args.destination === '-') await packFrom(from, flags['follow-link'], writeOut);
        else await copyBetween(from, here(args.destination), flags.archive ? 'keep' : own, flags['follow-link']);
      });
    } else if (destination!.position !== undefined) {
      throw new PgError('BAD_USAGE', `${args.destination} is the past, which cannot be written`, {
        hint: 'leave out the @ and what follows it',
      });
    } else {
      await withContainerRoot(roots, destination!.container, false, async (rootPath) => {
        const to = { rootPath, path: destination!.path };
        const owner = flags.archive ? 'keep' : { uid: 0, gid: 0 };
        // What comes as a tar says itself whose it is.
        if (args.source === '-') await unpackTo(to, process.stdin, 'keep');
        else await copyBetween(here(args.source), to, owner, flags['follow-link']);
      });
    }
  }
}

/** A path of the host; a final `/` or `/.` means something. */
function here(path: string): Place {
  const end = /(\/\.?|^\.)$/.exec(path)?.[0] ?? '';
  return { rootPath: '/', path: resolve(path) + (end === '.' ? '/.' : end) };
}

/** `CONTAINER[@POSITION]:PATH`; not a path of the host, which begins with `/` or `.` or has no colon. */
function inContainer(text: string): { container: string; position: string | undefined; path: string } | undefined {
  if (text.startsWith('/') || text.startsWith('.')) return undefined;
  if (/^[^:/]+@/.test(text) && text.includes(':/')) {
    const place = parsePlace(text);
    return { container: place.name, position: place.position, path: text.slice(text.indexOf(':/') + 1) };
  }
  const at = text.indexOf(':');
  if (at <= 0) return undefined;
  const path = text.slice(at + 1);
  const { name, position } = parsePlace(text.slice(0, at));
  return { container: name, position, path: path.startsWith('/') ? path : `/${path}` };
}

function writeOut(piece: Uint8Array): Promise<void> {
  return new Promise((resolve, reject) => {
    process.stdout.write(piece, (error) =>
      error ? reject(new PgError('OUTPUT', `stdout: ${error.message}`)) : resolve(),
    );
  });
}
