import { Args, Flags } from '@oclif/core';
import { shortId } from '../../layers/images.ts';
import { importImage } from '../../layers/import.ts';
import type { BareNameOrigin } from '../../layers/transport/source.ts';
import { PgError } from '../../mdm/error.ts';
import { openStore } from '../../store/store.ts';
import { PgCommand } from '../base.ts';
import { humanSize } from '../output.ts';
import { terminalProgress } from '../progress.ts';

export default class Import extends PgCommand {
  static override summary = 'Bring an image into the store, from a registry, an engine, an archive or a directory.';
  static override description = `SOURCE is docker://NAME, docker-daemon:NAME, docker-archive:PATH[:NAME], oci-archive:PATH[:NAME], oci:DIR[:NAME],
dir:DIR, or a bare name as Docker writes it: then the image is taken from where it is found first, and pg says where that was.
Prints the image's id. An image that is here already is not read again.`;
  static override examples = [
    { description: 'From wherever Docker would have it', command: '<%= config.bin %> import nginx:latest' },
    { description: 'What docker save wrote', command: '<%= config.bin %> import docker-archive:nginx.tar' },
    {
      description: 'One platform of an OCI archive, under another name',
      command: '<%= config.bin %> import --platform linux/arm64 --name web:arm oci-archive:web.tar',
    },
  ];
  static override flags = {
    platform: Flags.string({
      description: 'which image of an index (default: of this machine)',
      helpValue: 'OS/ARCH[/VARIANT]',
    }),
    from: Flags.string({
      description: 'where to take a bare name from',
      options: ['docker', 'podman', 'registry'],
    }),
    name: Flags.string({ description: 'call the image so, whatever its source calls it', helpValue: 'NAME[:TAG]' }),
    quiet: Flags.boolean({ char: 'q', description: 'no progress, only the id' }),
  };
  static override args = {
    source: Args.string({ description: 'the image to bring', required: true }),
  };

  async run(): Promise<void> {
    const { args, flags } = await this.parse(Import);
    const store = openStore(this.roots(flags));
    const progress = terminalProgress(flags.quiet === true);
    const stop = new AbortController();
    const interrupt = (): void => stop.abort();
    process.once('SIGINT', interrupt).once('SIGTERM', interrupt);
    try {
      const { image, took, alreadyPresent } = await importImage(store, args.source, {
        progress,
        signal: stop.signal,
        ...(flags.platform === undefined ? {} : { platform: flags.platform }),
        ...(flags.from === undefined ? {} : { from: flags.from as BareNameOrigin }),
        ...(flags.name === undefined ? {} : { name: flags.name }),
      });
      progress.end();
      if (!flags.quiet) {
        const called = image.names.length === 0 ? shortId(image.id) : image.names.join(', ');
        const how = alreadyPresent ? 'is here already; looked in' : `(${humanSize(image.size)}) taken from`;
        process.stderr.write(`${called} ${how} ${took}\n`);
      }
      process.stdout.write(`${image.id}\n`);
    } catch (error) {
      if (!stop.signal.aborted) throw error;
      throw new PgError('INTERRUPTED', 'interrupted: nothing was imported', { cause: error });
    } finally {
      progress.end();
      process.off('SIGINT', interrupt).off('SIGTERM', interrupt);
      await store.close();
    }
  }
}
