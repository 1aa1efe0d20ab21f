import { Args, Flags } from '@oclif/core';
import { exportImage, exportIndex, type Exported, type ExportOptions } from '../../layers/export.ts';
import { getImage } from '../../layers/images.ts';
import type { ManifestForm } from '../../layers/publish/manifests.ts';
import { PgCommand } from '../base.ts';
import { humanSize } from '../output.ts';
import { progressFlags } from '../progress.ts';
import { transfer } from '../transfer.ts';

/** Flags of `export` and `push`. */
export const exportFlags = {
  'all-platforms': Flags.boolean({ description: 'all images of the index that was imported under this name' }),
  format: Flags.string({
    description: "the manifest: as it was 'published', or 'oci' or 'docker' (default: published; oci in OCI layouts)",
    options: ['published', 'oci', 'docker'],
  }),
  ...progressFlags,
};

export default class Export extends PgCommand {
  static override summary = 'Write an image to an archive, a directory, an engine or a registry.';
  static override description = `DESTINATION is docker-archive:PATH[:NAME], oci-archive:PATH[:NAME], oci:DIR[:NAME], dir:DIR, docker-daemon:[NAME], podman-daemon:[NAME] or docker://NAME.
Config and layers are those that were imported, bit for bit: the image id and every DiffID stay, and so does the manifest's digest where the compressed layers are kept
or can be packed again (keep_blobs in config.toml). Prints the manifest's digest where there is one.`;
  static override examples = [
    { description: 'For docker load', command: '<%= config.bin %> export nginx:latest docker-archive:nginx.tar' },
    {
      description: 'For podman, skopeo, umoci',
      command: '<%= config.bin %> export nginx:latest oci-archive:nginx.tar',
    },
    {
      description: 'Into the local Docker engine, under another name',
      command: '<%= config.bin %> export nginx:latest docker-daemon:web:1',
    },
  ];
  static override flags = exportFlags;
  static override args = {
    image: Args.string({ description: 'a name or the beginning of an id', required: true }),
    destination: Args.string({ description: 'where to write it', required: true }),
  };

  async run(): Promise<void> {
    const { args, flags } = await this.parse(Export);
    const onErrors = (write: typeof this.errorEvents): void => void (this.errorEvents = write);
    const interrupted = 'the image was not written';
    await transfer(this.roots(flags), flags, onErrors, interrupted, async ({ store, progress, signal, say }) => {
      const image = getImage(store, args.image);
      const options: ExportOptions = {
        progress,
        signal,
        ...(flags.format === undefined ? {} : { form: flags.format as ManifestForm }),
      };
      const exported = flags['all-platforms']
        ? await exportIndex(store, args.image, args.destination, options)
        : await exportImage(store, image, args.destination, options);
      for (const line of exportedLines(args.image, exported)) say(line);
      progress.result({ image: image.id, ...exported });
      if (exported.digest !== undefined) process.stdout.write(`${exported.digest}\n`);
    });
  }
}

/** What an export came to, in words. */
export function exportedLines(
  name: string,
  { to, isPublished, digest, writtenBytes, presentBytes }: Exported,
): string[] {
  const there = presentBytes === 0 ? '' : `; ${humanSize(presentBytes)} were there`;
  const lines = [`${name} written to ${to}: ${humanSize(writtenBytes)}${there}`];
  if (digest !== undefined && !isPublished) lines.push('its manifest is a new one (image id and DiffIDs are the same)');
  return lines;
}
