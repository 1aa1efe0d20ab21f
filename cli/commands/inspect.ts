import { Args, Flags } from '@oclif/core';
import { addressOf } from '../../layers/address.ts';
import { findImage } from '../../layers/images.ts';
import { isPgError, PgError } from '../../mdm/error.ts';
import { commitContainer, findContainer } from '../../runtime/containers.ts';
import { inspectContainer } from '../../runtime/inspect.ts';
import { meteringOf } from '../../runtime/metering.ts';
import { openStore } from '../../store/store.ts';
import type { Roots } from '../../store/paths.ts';
import { PgCommand } from '../base.ts';
import { printObjects } from '../output.ts';

export default class Inspect extends PgCommand {
  static override summary = 'Everything about containers or images, as JSON.';
  static override description = `As docker shows it; below "Pg" the root of the image's tree and its PromiseGrid address, and for a container the position of its writable
layer's log: epoch, size and Merkle root.`;
  static override examples = [
    '<%= config.bin %> inspect web',
    "<%= config.bin %> inspect --format '{{.NetworkSettings.IPAddress}}' web",
    "<%= config.bin %> inspect --format '{{json .Pg}}' web",
  ];
  static override flags = {
    format: Flags.string({ char: 'f', description: "'json', or a Go template", helpValue: 'FORMAT' }),
    type: Flags.string({ description: 'look only at these', options: ['container', 'image'] }),
  };
  static override args = { name: Args.string({ description: 'container or image, one or more', required: true }) };
  static override strict = false;

  async run(): Promise<void> {
    const { argv, flags } = await this.parse(Inspect);
    const roots = this.roots(flags);
    const objects: object[] = [];
    let missing: Error | undefined;
    for (const name of argv as string[]) {
      try {
        objects.push(await lookUp(roots, name, flags.type));
      } catch (error) {
        missing ??= error as Error;
      }
    }
    if (objects.length > 0 || flags.format === undefined) printObjects(objects, flags.format);
    if (missing !== undefined) throw missing;
  }
}

async function lookUp(roots: Roots, name: string, type: string | undefined): Promise<object> {
  if (type !== 'image') {
    try {
      const container = await findContainer(roots, name);
      const running = container.state.status === 'running';
      const position = running ? await commitContainer(roots, name).catch(() => null) : container.state.position;
      return inspectContainer(roots, container, position, await meteringOf(roots, container.record));
    } catch (error) {
      if (!isPgError(error, 'NO_SUCH_CONTAINER') || type === 'container') throw error;
    }
  }
  const store = openStore(roots);
  try {
    const image = findImage(store, name);
    if (image === undefined) {
      throw new PgError('NOT_FOUND', `No such ${type ?? 'object'}: ${name}`, {
        hint: 'pg ps -a and pg images list what there is',
      });
    }
    const [os, architecture, variant] = image.platform.split('/');
    return {
      Id: image.id,
      RepoTags: image.names,
      RepoDigests: image.digests,
      Created: image.created ?? '',
      Os: os,
      Architecture: architecture,
      ...(variant !== undefined && { Variant: variant }),
      Author: image.config.author ?? '',
      Size: image.size,
      Config: image.config.config ?? {},
      RootFS: { Type: 'layers', Layers: image.layers.map((layer) => layer.diffId) },
      Pg: { TreeRoot: Buffer.from(image.treeRoot).toString('hex'), Address: addressOf(image.treeRoot) },
    };
  } finally {
    await store.close();
  }
}
