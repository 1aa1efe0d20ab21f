import assert from 'node:assert/strict';
import { ingestLayer, LayerStack } from '../../layers/ingest.ts';
import { MergedTree } from '../../layers/merge.ts';
import { Place } from '../store/fixture.ts';
import { tarBytes } from './tar-builder.ts';

describe('layers read at the same time', () => {
  const place = new Place();
  after(() => place.remove());

  for (const before of [0, 1, 2, 7]) {
    it(`loses no entry when the layer below ends after ${before} entries of the one above`, async () => {
      const store = place.open();
      const writer = store.writer();
      const tree = new MergedTree();
      const stack = new LayerStack(tree);
      const names = Array.from({ length: 8 }, (_, i) => `file-${i}`);
      const whole = tarBytes(names.map((name) => ({ name })));
      const { promise: reached, resolve: upperWaits } = Promise.withResolvers<void>();
      const { promise: ended, resolve: lowerEnded } = Promise.withResolvers<void>();
      // The upper layer stops after `before` entries until the lower one is done; a file without data is one block.
      const upper = async function* (): AsyncGenerator<Uint8Array> {
        if (before > 0) yield whole.subarray(0, before * 512);
        upperWaits();
        await ended;
        yield whole.subarray(before * 512);
      };
      const lower = async function* (): AsyncGenerator<Uint8Array> {
        await reached;
        yield tarBytes([{ name: 'base' }]);
      };
      await Promise.all([
        ingestLayer(writer, stack, 0, 'sha256:0', lower(), 'the lower layer').then(() => lowerEnded()),
        ingestLayer(writer, stack, 1, 'sha256:1', upper(), 'the upper layer'),
      ]);
      await writer.abort();
      assert.deepEqual(
        tree.sorted(0).map((entry) => entry.name),
        ['base', ...names],
      );
    });
  }
});
