import { mkdirSync } from 'node:fs';
import { Args, Flags } from '@oclif/core';
import { canonicalMountPoint, startDetachedMount } from '../../fs/detached.ts';
import { createVolume, findVolume, volumeLockPath, volumeLogDir } from '../../fs/volumes.ts';
import { getImage, SCRATCH } from '../../layers/images.ts';
import { PgError } from '../../mdm/error.ts';
import { locate } from '../../runtime/history.ts';
import { resolveContainer } from '../../runtime/names.ts';
import { lockPath, logDirOf, readRecord } from '../../runtime/record.ts';
import { openStore, type Store } from '../../store/store.ts';
import type { Roots } from '../../store/paths.ts';
import { PgCommand } from '../base.ts';
import { parseContainerAt } from '../place.ts';

/** What is to be mounted: an image's tree, and the log of the writable layer over it, if there is one. */
interface Target {
  treeRoot: Uint8Array | null;
  logDir: string | null;
  label: string;
  /** The size of the log at the position that was asked for. */
  limit?: number;
  /** Of what may be written: whoever has it locked may write. Empty for what cannot be. */
  lockPath: string;
}

export default class Mount extends PgCommand {
  static override summary = 'Mount an image, a container or a named writable layer without running anything.';
  static override description = `SOURCE is an image (mounted read-only), a container, a name that --name gave before, or the reserved
empty image "${SCRATCH}". CONTAINER@POSITION is the container as it was, read-only: a snapshot, a commit, a time
(docs/history.md). Its setuid programs and device nodes do not work unless --suid and --dev say so. The mount has a server process of its own; pg umount ends it.`;
  static override examples = [
    { description: 'Look into an image', command: '<%= config.bin %> mount nginx:latest /mnt' },
    {
      description: 'A new, empty writable filesystem',
      command: `<%= config.bin %> mount --rw --name vol1 ${SCRATCH} /mnt`,
    },
    { description: 'The same again, with what was written', command: '<%= config.bin %> mount --rw vol1 /mnt' },
    { description: 'Change the files of a stopped container', command: '<%= config.bin %> mount --rw web /mnt' },
    { description: 'A container as it was ten minutes ago', command: '<%= config.bin %> mount web@-10m /mnt' },
  ];
  static override flags = {
    rw: Flags.boolean({
      description: 'let it be written; what is written is kept in the log of the container or of --name',
    }),
    suid: Flags.boolean({ description: 'honour setuid bits and file capabilities in it (else: nosuid)' }),
    dev: Flags.boolean({ description: 'let its device nodes work (else: nodev)' }),
    name: Flags.string({
      description: 'make a writable layer of this name over the image (with --rw)',
      helpValue: 'NAME',
    }),
  };
  static override args = {
    source: Args.string({ description: 'IMAGE, CONTAINER[@POSITION], NAME[@POSITION] or scratch', required: true }),
    dir: Args.string({ description: 'an existing, or new, directory', required: true }),
  };

  async run(): Promise<void> {
    const { args, flags } = await this.parse(Mount);
    this.needRoot('pg mount');
    const roots = this.roots(flags);
    if (flags.name !== undefined && !flags.rw) {
      throw new PgError('BAD_USAGE', '--name makes a writable layer, which needs --rw', {
        hint: `pg mount --rw --name ${flags.name} ${args.source} ${args.dir}`,
      });
    }
    const store = openStore(roots);
    // Until the record of the mount, or of the layer, holds the image's tree: else `rmi` and `gc` could take it in between.
    const lease = store.lease(`mount ${args.source}`);
    try {
      const { name, position } = parseContainerAt(args.source);
      const target =
        position !== undefined
          ? await past(roots, name, position, flags)
          : flags.name === undefined
            ? existing(roots, store, args.source, flags.rw)
            : named(roots, store, args.source, flags.name);
      mkdirSync(args.dir, { recursive: true });
      const { lockPath, ...what } = target;
      await startDetachedMount(
        {
          roots,
          mountPoint: canonicalMountPoint(args.dir),
          ...what,
          readOnly: !flags.rw,
          noSuid: !flags.suid,
          noDev: !flags.dev,
        },
        flags.rw ? lockPath : null,
      );
    } finally {
      lease.release();
      await store.close();
    }
  }
}

/** A container, or a layer made before, as it was. */
async function past(
  roots: Roots,
  name: string,
  position: string,
  flags: { rw: boolean; name?: string | undefined },
): Promise<Target> {
  if (flags.rw || flags.name !== undefined) {
    throw new PgError('BAD_USAGE', `${name}@${position} is the past, which cannot be written`, {
      hint: `leave out --rw; or make a container of it: pg clone ${name}@${position} NAME`,
    });
  }
  const { subject, size } = await locate(roots, name, position);
  const { treeRoot, dir } = subject;
  const label = `${subject.name}@${position}`;
  return size === 0
    ? { treeRoot, logDir: null, label, lockPath: '' }
    : { treeRoot, logDir: dir, label, limit: size, lockPath: '' };
}

/** `--name`: a new layer over the image; one of that name over the same image is taken up again. */
function named(roots: Roots, store: Store, image: string, name: string): Target {
  const treeRoot = imageTree(store, image);
  const hex = treeRoot === null ? null : Buffer.from(treeRoot).toString('hex');
  const volume = findVolume(roots, name) ?? createVolume(roots, name, image, treeRoot);
  if (volume.treeRoot !== hex) {
    throw new PgError('NAME_TAKEN', `"${name}" is a layer over ${volume.image}, not over ${image}`, {
      hint: `take another name, or mount it as it is: pg mount --rw ${name} DIR`,
    });
  }
  return { treeRoot, logDir: volumeLogDir(roots, name), label: name, lockPath: volumeLockPath(roots, name) };
}

/** A layer made before, a container, or an image, in this order. */
function existing(roots: Roots, store: Store, source: string, writable: boolean): Target {
  const volume = findVolume(roots, source);
  if (volume !== undefined) {
    return {
      treeRoot: fromHex(volume.treeRoot),
      logDir: volumeLogDir(roots, source),
      label: source,
      lockPath: volumeLockPath(roots, source),
    };
  }
  const id = source === SCRATCH ? undefined : containerId(roots, source);
  if (id !== undefined) {
    const record = readRecord(roots, id);
    return {
      treeRoot: fromHex(record.treeRoot),
      logDir: logDirOf(roots, id),
      label: record.name,
      lockPath: lockPath(roots, id),
    };
  }
  if (writable) {
    throw new PgError('BAD_USAGE', `what is written over the image ${source} needs a name to be kept under`, {
      hint: `pg mount --rw --name NAME ${source} DIR`,
    });
  }
  return { treeRoot: imageTree(store, source), logDir: null, label: source, lockPath: '' };
}

const fromHex = (hex: string | null): Uint8Array | null => (hex === null ? null : Buffer.from(hex, 'hex'));

function containerId(roots: Roots, reference: string): string | undefined {
  try {
    return resolveContainer(roots, reference);
  } catch (error) {
    if (error instanceof PgError && error.code === 'NO_SUCH_CONTAINER') return undefined;
    throw error;
  }
}

function imageTree(store: Store, name: string): Uint8Array | null {
  return name === SCRATCH ? null : getImage(store, name).treeRoot;
}
