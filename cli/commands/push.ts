import { Args } from '@oclif/core';
import { exportImage, exportIndex, type ExportOptions } from '../../layers/export.ts';
import { getImage, tagDigest } from '../../layers/images.ts';
import { parseDestination } from '../../layers/publish/destination.ts';
import type { ManifestForm } from '../../layers/publish/manifests.ts';
import { formatReference, parseImageName } from '../../layers/reference.ts';
import { PgError } from '../../mdm/error.ts';
import { PgCommand } from '../base.ts';
import { transfer } from '../transfer.ts';
import { exportedLines, exportFlags } from './export.ts';

export default class Push extends PgCommand {
  static override summary = 'Send an image to a registry.';
  static override description = `Without DESTINATION the image goes where its name says. DESTINATION is a name, or any destination of pg export. What the registry has is not sent again; blobs
that other repositories of it have are mounted from there. Prints the manifest's digest: the one the image was imported with, if it was not changed.`;
  static override examples = [
    '<%= config.bin %> push registry.example.com/team/web:1',
    { description: 'Under another name', command: '<%= config.bin %> push web registry.example.com/team/web:2' },
  ];
  static override flags = exportFlags;
  static override args = {
    image: Args.string({ description: 'a name or the beginning of an id', required: true }),
    destination: Args.string({ description: 'where to send it' }),
  };

  async run(): Promise<void> {
    const { args, flags } = await this.parse(Push);
    const onErrors = (write: typeof this.errorEvents): void => void (this.errorEvents = write);
    const interrupted = 'the registry has at most parts of it, under no name';
    await transfer(this.roots(flags), flags, onErrors, interrupted, async ({ store, progress, signal, say }) => {
      const image = getImage(store, args.image);
      const destination = destinationOf(args.destination ?? args.image, args.destination === undefined);
      const options: ExportOptions = {
        progress,
        signal,
        ...(flags.format === undefined ? {} : { form: flags.format as ManifestForm }),
      };
      const exported = flags['all-platforms']
        ? await exportIndex(store, args.image, destination, options)
        : await exportImage(store, image, destination, options);
      const to = parseDestination(destination);
      if (to.transport === 'docker' && exported.digest !== undefined && !flags['all-platforms'])
        tagDigest(store, image.id, to.reference, exported.digest);
      for (const line of exportedLines(args.image, exported)) say(line);
      progress.result({ image: image.id, ...exported });
      if (exported.digest !== undefined) process.stdout.write(`${exported.digest}\n`);
    });
  }
}

/** A destination, or a bare name, which means a registry. */
function destinationOf(text: string, isImage: boolean): string {
  if (!isImage && /^(docker:\/\/|(docker-archive|oci-archive|oci|dir|docker-daemon|podman-daemon):)/.test(text))
    return text;
  if (isImage && /^(sha256:)?[0-9a-f]{12,64}$/.test(text)) {
    throw new PgError('DESTINATION_INVALID', `an id does not say where to push ${text}`, {
      hint: `name the place: pg push ${text} HOST/NAME:TAG`,
    });
  }
  const { domain, path, tag } = parseImageName(text);
  return `docker://${formatReference({ domain, path, tag: tag ?? 'latest' })}`;
}
