import { Args, Flags } from '@oclif/core';
import { shortId } from '../../layers/images.ts';
import { importImage, type ImportCounts, type ImportOptions } from '../../layers/import.ts';
import { importIndex } from '../../layers/import-index.ts';
import type { BareNameOrigin } from '../../layers/transport/source.ts';
import { readSettings } from '../../runtime/settings.ts';
import { PgCommand } from '../base.ts';
import { humanSize } from '../output.ts';
import { progressFlags } from '../progress.ts';
import { transfer } from '../transfer.ts';

export default class Import extends PgCommand {
  static override summary = 'Bring an image into the store, from a registry, an engine, an archive or a directory.';
  static override description = `SOURCE is docker://NAME, docker-daemon:NAME, podman-daemon:NAME, containers-storage:NAME, docker-archive:PATH[:NAME], oci-archive:PATH[:NAME], oci:DIR[:NAME],
dir:DIR, or a bare name as Docker writes it: then the image is taken from where it is found first, and pg says where that was.
Prints the image's id (with --all-platforms, the digest of the index). An image that is here already is not read again.`;
  static override examples = [
    { description: 'From wherever Docker would have it', command: '<%= config.bin %> import nginx:latest' },
    { description: 'What docker save wrote', command: '<%= config.bin %> import docker-archive:nginx.tar' },
    {
      description: 'One platform of an OCI archive, under another name',
      command: '<%= config.bin %> import --platform linux/arm64 oci-archive:web.tar web:arm',
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
    ...progressFlags,
  };
  static override args = {
    source: Args.string({ description: 'the image to bring', required: true }),
    name: Args.string({ description: 'call the image so, whatever its source calls it' }),
  };

  async run(): Promise<void> {
    const { args, flags } = await this.parse(Import);
    const roots = this.roots(flags);
    const { keepBlobs, unpack } = await readSettings(roots);
    const name = args.name ?? flags.name;
    const onErrors = (write: typeof this.errorEvents): void => void (this.errorEvents = write);
    await transfer(roots, flags, onErrors, 'nothing was imported', async ({ store, progress, signal, say }) => {
      const options: ImportOptions = {
        progress,
        signal,
        keepBlobs,
        unpack,
        ...(flags.platform === undefined ? {} : { platform: flags.platform }),
        ...(flags.from === undefined ? {} : { from: flags.from as BareNameOrigin }),
        ...(name === undefined ? {} : { name }),
      };
      if (flags['all-platforms']) {
        const { digest, images, took, counts, name: called } = await importIndex(store, args.source, options);
        say(`${called} for ${images.map(({ platform }) => platform).join(', ')} taken from ${took}`);
        say(countsLine(counts));
        progress.result({ index: digest, images: images.map(({ id }) => id), names: [called], took, ...counts });
        process.stdout.write(`${digest}\n`);
        return;
      }
      const { image, took, alreadyPresent, counts } = await importImage(store, args.source, options);
      const called = image.names.length === 0 ? shortId(image.id) : image.names.join(', ');
      const how = alreadyPresent ? 'is here already; looked in' : `(${humanSize(image.size)}) taken from`;
      say(`${called} ${how} ${took}`);
      if (!alreadyPresent) say(countsLine(counts));
      progress.result({ image: image.id, names: image.names, digests: image.digests, took, alreadyPresent, ...counts });
      process.stdout.write(`${image.id}\n`);
    });
  }
}

/** What was read, what was not read because it was here, and what of the files was in the store already. */
function countsLine({ readBytes, presentBytes, contentBytes, knownBytes }: ImportCounts): string {
  const words = [`read ${humanSize(readBytes)}`];
  if (presentBytes > 0) words.push(`layers of ${humanSize(presentBytes)} were here`);
  if (knownBytes > 0) words.push(`${humanSize(knownBytes)} of ${humanSize(contentBytes)} in files were in the store`);
  return words.join('; ');
}
