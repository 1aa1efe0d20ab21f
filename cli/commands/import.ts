import { Args, Flags } from '@oclif/core';
import { type AuthorOptions, authorImage, editImage } from '../../layers/author.ts';
import { type ImageRecord, shortId } from '../../layers/images.ts';
import { importImage, type ImportCounts, type ImportOptions } from '../../layers/import.ts';
import { importIndex } from '../../layers/import-index.ts';
import { describeRoot, parseRootSource } from '../../layers/root-tar.ts';
import type { BareNameOrigin } from '../../layers/transport/source.ts';
import { PgError } from '../../mdm/error.ts';
import { wakeHousekeeper } from '../../runtime/housekeeper.ts';
import { readSettings } from '../../runtime/settings.ts';
import { PgCommand } from '../base.ts';
import { changesOf, configFlags } from '../config-flags.ts';
import { humanSize } from '../output.ts';
import { progressFlags } from '../progress.ts';
import { transfer } from '../transfer.ts';

export default class Import extends PgCommand {
  static override summary = 'Bring an image into the store, from a registry, an engine, an archive or a directory.';
  static override description = `SOURCE is docker://NAME, docker-daemon:NAME, podman-daemon:NAME, containers-storage:NAME, docker-archive:PATH[:NAME], oci-archive:PATH[:NAME], oci:DIR[:NAME],
dir:DIR, or a bare name as Docker writes it: then the image is taken from where it is found first, and pg says where that was.
A root filesystem becomes an image of one layer, as with docker import: rootfs:DIR, tar:FILE, - (stdin) or a URL of a tar, plain, gzip'd or zstd'd (dir:DIR too, if it holds no image). CONFIG flags say how it is to run;
with any other SOURCE they make another image of the same layers, called NAME.
Prints the image's id (with --all-platforms, the digest of the index). An image that is here already is not read again.`;
  static override examples = [
    { description: 'From wherever Docker would have it', command: '<%= config.bin %> import nginx:latest' },
    { description: 'What docker save wrote', command: '<%= config.bin %> import docker-archive:nginx.tar' },
    {
      description: 'One platform of an OCI archive, under another name',
      command: '<%= config.bin %> import --platform linux/arm64 oci-archive:web.tar web:arm',
    },
    {
      description: 'An image of a directory',
      command: `<%= config.bin %> import rootfs:/srv/debian debian:mine --cmd '["/bin/bash"]' --env LANG=C.UTF-8`,
    },
  ];
  static override flags = {
    platform: Flags.string({
      description: 'which image of an index (default: of this machine)',
      helpValue: 'OS/ARCH[/VARIANT]',
    }),
    'all-platforms': Flags.boolean({
      description: 'all images of an index, and the index itself',
      exclusive: ['platform'],
    }),
    from: Flags.string({
      description: 'where to take a bare name from',
      options: ['docker', 'podman', 'registry'],
    }),
    name: Flags.string({ description: 'the same as NAME', helpValue: 'NAME[:TAG]' }),
    message: Flags.string({
      char: 'm',
      helpGroup: 'CONFIG',
      helpValue: 'TEXT',
      description: 'a comment in its history',
    }),
    ...configFlags,
    ...progressFlags,
  };
  static override args = {
    source: Args.string({ description: 'the image to bring', required: true }),
    name: Args.string({ description: 'call the image so, whatever its source calls it' }),
  };

  async run(): Promise<void> {
    const { args, flags } = await this.parse(Import);
    const roots = this.roots(flags);
    const { keepBlobs, unpack, compress } = await readSettings(roots);
    const name = args.name ?? flags.name;
    const onErrors = (write: typeof this.errorEvents): void => void (this.errorEvents = write);
    const changes = changesOf(flags);
    const root = parseRootSource(args.source);
    const edits: AuthorOptions = {
      changes,
      ...(name === undefined ? {} : { name }),
      ...(flags.message === undefined ? {} : { message: flags.message }),
      ...(flags.platform === undefined ? {} : { platform: flags.platform }),
    };
    await transfer(roots, flags, onErrors, 'nothing was imported', async ({ store, progress, signal, say }) => {
      if (root !== undefined) {
        refuse(flags, ['all-platforms', 'from']);
        const image = await authorImage(store, root, { ...edits, unpack, progress, signal });
        say(`${nameOf(image)} (${humanSize(image.size)}) made of the files in ${describeRoot(root)}`);
        progress.result({ image: image.id, names: image.names, took: describeRoot(root), alreadyPresent: false });
        process.stdout.write(`${image.id}\n`);
        return;
      }
      const options: ImportOptions = {
        progress,
        signal,
        keepBlobs,
        unpack,
        compress: compress === 'fast',
        ...(flags.platform === undefined ? {} : { platform: flags.platform }),
        ...(flags.from === undefined ? {} : { from: flags.from as BareNameOrigin }),
        ...(name === undefined || changes.length > 0 ? {} : { name }),
      };
      if (flags['all-platforms']) {
        if (changes.length > 0)
          throw new PgError('BAD_FLAG', 'the config of one image can be changed, not of all platforms');
        const { digest, images, took, counts, name: called } = await importIndex(store, args.source, options);
        say(`${called} for ${images.map(({ platform }) => platform).join(', ')} taken from ${took}`);
        say(countsLine(counts));
        progress.result({ index: digest, images: images.map(({ id }) => id), names: [called], took, ...counts });
        process.stdout.write(`${digest}\n`);
        return;
      }
      const { image: found, took, alreadyPresent, counts } = await importImage(store, args.source, options);
      const image = changes.length === 0 ? found : editImage(store, found, edits);
      const called = nameOf(image);
      const how = alreadyPresent ? 'is here already; looked in' : `(${humanSize(image.size)}) taken from`;
      say(`${called} ${how} ${took}`);
      if (!alreadyPresent) say(countsLine(counts));
      progress.result({ image: image.id, names: image.names, digests: image.digests, took, alreadyPresent, ...counts });
      process.stdout.write(`${image.id}\n`);
    });
    await wakeHousekeeper(roots);
  }
}

function nameOf(image: ImageRecord): string {
  return image.names.length === 0 ? shortId(image.id) : image.names.join(', ');
}

/** PgError `BAD_FLAG` for flags that say nothing about a root filesystem. */
function refuse(flags: Record<string, unknown>, names: readonly string[]): void {
  for (const name of names)
    if (flags[name] !== undefined && flags[name] !== false)
      throw new PgError('BAD_FLAG', `--${name} says nothing about a root filesystem`);
}

/** What was read, what was not read because it was here, and what of the files was in the store already. */
function countsLine({ readBytes, presentBytes, contentBytes, knownBytes }: ImportCounts): string {
  const words = [`read ${humanSize(readBytes)}`];
  if (presentBytes > 0) words.push(`layers of ${humanSize(presentBytes)} were here`);
  if (knownBytes > 0) words.push(`${humanSize(knownBytes)} of ${humanSize(contentBytes)} in files were in the store`);
  return words.join('; ');
}
