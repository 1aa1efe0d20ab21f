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

/** A directory that is being looked at, and the name of the one in it that is, too. */
interface OpenDirectory {
  key: string;
  node: DirectoryNode;
  next: number;
  name: string;
  found: TreeDamage;
}

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

  /** Goes down with a list of what is open, not by calls: a tree may be deeper than the stack. */
  private directory(top: Uint8Array): TreeDamage {
    const open: OpenDirectory[] = [];
    for (let below = this.enter(top, open); ;) {
      const here = open.at(-1);
      if (here === undefined) return below!;
      if (below !== undefined) add(here.found, prefixed(`${here.name}/`, below));
      const next = this.advance(here);
      if (next instanceof Uint8Array) {
        below = this.enter(next, open);
      } else {
        open.pop();
        this.known.set(here.key, next);
        below = next;
      }
    }
  }

  /** Opens a directory; or its damage, when that is known or all that can be said of it. */
  private enter(hash: Uint8Array, open: OpenDirectory[]): TreeDamage | undefined {
    const key = Buffer.from(hash).toString('latin1');
    const known = this.known.get(key);
    if (known !== undefined) return known;
    this.known.set(key, NONE);
    const damage = this.guarded(() => {
      const node = new DirectoryNode(readNode(this.store, hash));
      open.push({ key, node, next: 0, name: '', found: { count: 0, paths: [] } });
      return undefined;
    });
    if (damage !== undefined) this.known.set(key, damage);
    return damage;
  }

  /** Looks at entries up to the next directory: its hash; or what is damaged, when there is none left. */
  private advance(here: OpenDirectory): Uint8Array | TreeDamage {
    return this.guarded(() => {
      while (here.next < here.node.count) {
        const { name, child, root, size } = here.node.entry(here.next++);
        here.name = name;
        if (child !== undefined) return child.hash;
        const why = root === undefined ? undefined : this.lost({ root, size });
        if (why !== undefined) add(here.found, { count: 1, paths: [{ path: name, why }] });
      }
      return here.found.count === 0 ? NONE : here.found;
    });
  }

  private lost(ref: ContentRef): string | undefined {
    if (ref.size === 0) return undefined;
    const key = contentKey(ref);
    const name = key.toString('latin1');
    this.reached?.add(name);
    return this.why(name) ?? (this.store.table('contents').has(key) ? undefined : `${describeContent(ref)} is missing`);
  }

  /** What `action` gives; of a node that is missing or damaged, that. */
  private guarded<T>(action: () => T): T | TreeDamage {
    try {
      return action();
    } catch (error) {
      if (isPgError(error) && LOST.has(error.code)) return { count: 1, paths: [{ path: '', why: error.message }] };
      throw error;
    }
  }
}

function add(to: TreeDamage, { count, paths }: TreeDamage): void {
  to.count += count;
  to.paths.push(...paths.slice(0, PATHS_MAX - to.paths.length));
}

function prefixed(prefix: string, { count, paths }: TreeDamage): TreeDamage {
  return count === 0 ? NONE : { count, paths: paths.map(({ path, why }) => ({ path: prefix + path, why })) };
}
