/** Layers merged in memory, without a store: what the tests of names and links need, and the fuzzer. */
import { Readable } from 'node:stream';
import { LayerApplier } from '../../layers/apply.ts';
import { MergedTree } from '../../layers/merge.ts';
import { StreamInput } from '../../layers/tar-input.ts';
import { TarReader } from '../../layers/tar.ts';

/** Applies tars one over another; gives the tree, and each file's data by its row (holes left out). */
export async function mergeTars(tars: readonly Buffer[]): Promise<{ tree: MergedTree; contents: Map<number, string> }> {
  const tree = new MergedTree();
  const contents = new Map<number, string>();
  for (const [layer, tar] of tars.entries()) {
    const input = new StreamInput(Readable.from([tar]));
    const reader = new TarReader(input, () => undefined);
    const applier = new LayerApplier(tree, layer);
    for (let entry = await reader.next(); entry !== undefined; entry = await reader.next()) {
      const data: Buffer[] = [];
      await input.copy(entry.bodyBytes, (piece) => void data.push(piece));
      const row = applier.apply(entry);
      if (row !== undefined) contents.set(row, Buffer.concat(data).toString('latin1'));
    }
  }
  return { tree, contents };
}
