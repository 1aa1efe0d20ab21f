import { isPgError } from '../mdm/error.ts';
import { contentKey, type ContentRef, describeContent } from '../store/content.ts';
import type { Store } from '../store/store.ts';
import { loadLayer } from './images.ts';
import { recipeSteps } from './recipe.ts';
import { readNode } from './tree.ts';
import { decodeRoot, DirectoryNode } from './trie.ts';

/** What of a tree, or a directory of it, cannot be read. */
export interface TreeDamage {
  /** Files and directories, and whatever lies below these. */
  count: number;
  /** The first of them: paths (latin1; directories end in `/`), and why. */
  paths: { path: string; why: string }[];
}

const PATHS_MAX = 20;
const LOST: ReadonlySet<string> = new Set(['CORRUPT_INDEX', 'NODE_NOT_FOUND', 'CORRUPT_NODE']);
const NONE: TreeDamage = { count: 0, paths: [] };

/** Walks image trees and layers for what they lack or have damaged. A directory that several share is looked at once. */
export class TreeCheck {
  private readonly store: Store;
  private readonly why: (key: string) => string | undefined;
  private readonly known = new Map<string, TreeDamage>();
  private readonly reached: Set<string> | undefined;

  /** `why` tells of a content's key, as latin1, why the content cannot be read, if it cannot. `reached` takes the keys of
   * the contents that are met. */
  constructor(store: Store, why: (key: string) => string | undefined, reached?: Set<string>) {
    this.reached = reached;
    this.store = store;
    this.why = why;
  }

  /** Hashes of the nodes that were met, as latin1. */
  get nodes(): ReadonlySet<string> {
    return new Set(this.known.keys());
  }

  /** The tree whose root record has this hash. */
  tree(treeRoot: Uint8Array): TreeDamage {
    const name = Buffer.from(treeRoot).toString('latin1');
    const known = this.known.get(name);
    if (known !== undefined) return known;
    const damage = this.guarded(() => {
      const { root, links } = decodeRoot(readNode(this.store, treeRoot));
      if (links !== undefined) {
        this.known.set(Buffer.from(links.hash).toString('latin1'), NONE);
        readNode(this.store, links.hash);
      }
      return this.directory(root.child!.hash);
    });
    const absolute = prefixed('/', damage);
    this.known.set(name, absolute);
    return absolute;
  }

  /** Whether the layer's tar can be made again: undefined, or what is in the way. */
  layer(diffId: string): string | undefined {
    try {
      const layer = loadLayer(this.store, diffId);
      if (layer === undefined) return 'its record is missing';
      if (layer.recipe.some((ref) => this.lost(ref) !== undefined)) return 'its recipe is damaged';
      let lost = 0;
      for (const step of recipeSteps(this.store, layer.recipe))
        if (step.kind === 'content' && this.lost(step.ref) !== undefined) lost++;
      return lost === 0 ? undefined : `${lost} of its files ${lost === 1 ? 'is' : 'are'} damaged`;
    } catch (error) {
      if (isPgError(error)) return error.message;
      throw error;
    }
  }

  private directory(hash: Uint8Array): TreeDamage {
    const name = Buffer.from(hash).toString('latin1');
    const known = this.known.get(name);
    if (known !== undefined) return known;
    this.known.set(name, NONE);
    const damage = this.guarded(() => this.entries(new DirectoryNode(readNode(this.store, hash))));
    this.known.set(name, damage);
    return damage;
  }

  private entries(node: DirectoryNode): TreeDamage {
    const found: TreeDamage = { count: 0, paths: [] };
    for (let i = 0; i < node.count; i++) {
      const { name, child, root, size } = node.entry(i);
      const why = child === undefined && root !== undefined ? this.lost({ root, size }) : undefined;
      const below = child === undefined ? NONE : prefixed(`${name}/`, this.directory(child.hash));
      const here = why === undefined ? below : { count: 1, paths: [{ path: name, why }] };
      found.count += here.count;
      found.paths.push(...here.paths.slice(0, PATHS_MAX - found.paths.length));
    }
    return found.count === 0 ? NONE : found;
  }

  private lost(ref: ContentRef): string | undefined {
    if (ref.size === 0) return undefined;
    const key = contentKey(ref);
    const name = key.toString('latin1');
    this.reached?.add(name);
    return this.why(name) ?? (this.store.table('contents').has(key) ? undefined : `${describeContent(ref)} is missing`);
  }

  /** What `action` gives; of a node that is missing or damaged, that. */
  private guarded(action: () => TreeDamage): TreeDamage {
    try {
      return action();
    } catch (error) {
      if (isPgError(error) && LOST.has(error.code)) return { count: 1, paths: [{ path: '', why: error.message }] };
      throw error;
    }
  }
}

function prefixed(prefix: string, { count, paths }: TreeDamage): TreeDamage {
  return count === 0 ? NONE : { count, paths: paths.map(({ path, why }) => ({ path: prefix + path, why })) };
}
