import assert from 'node:assert/strict';
import { join } from 'node:path';
import { PgError } from '../mdm/error.ts';
import { type ContentRef, contentKey, decodeExtents, describeContent, type Extent } from './content.ts';
import type { OpenContent } from './content-reader.ts';
import type { Lease } from './lease.ts';
import { type Roots, sectorsDir } from './paths.ts';
import { type Index, openIndex } from './index-db.ts';
import type { Table } from './table.ts';
import { type ContentWriter, openWriter } from './writer.ts';

export type { ContentRef, Extent } from './content.ts';

/** Something that must stay: all that the collector needs to be told. */
export type Reachable =
  { kind: 'content'; ref: ContentRef } | { kind: 'node'; hash: Uint8Array } | { kind: 'sector'; root: Uint8Array };

/** Opens the store below `roots.data`, making it if it is not there (unless `readOnly`). Cheap; any number of processes and threads may. */
export function openStore(roots: Roots, options: { readOnly?: boolean } = {}): Store {
  return new Store(roots, options.readOnly ?? false);
}

/** Sectors, contents and the index of one host. See docs/formats/store.md. */
export class Store {
  readonly roots: Roots;
  readonly readOnly: boolean;
  private readonly index: Index;

  constructor(roots: Roots, readOnly: boolean) {
    this.roots = roots;
    this.readOnly = readOnly;
    this.index = openIndex(roots, readOnly);
  }

  /** A table by name (made when it is not there). `contents`, `sectors` and `leases` are the store's own: do not write them. */
  table(name: string): Table {
    return this.index.table(name);
  }

  /** Runs `action` as one transaction over all tables: all of its writes or, when it throws, none; durable on return. May be nested. */
  transaction<T>(action: () => T): T {
    return this.index.transaction(action);
  }

  /** Begins a lease; see `Lease`. */
  lease(_purpose: string): Lease {
    assert.fail('being built');
  }

  hasContent(ref: ContentRef): boolean {
    return ref.size === 0 || this.table('contents').has(contentKey(ref));
  }

  /** Where a content's bytes are, or undefined if it is not here. */
  contentExtents(ref: ContentRef): Extent[] | undefined {
    if (ref.size === 0) return [];
    const value = this.table('contents').get(contentKey(ref));
    return value && decodeExtents(value);
  }

  /** Records a content whose sectors are here already. Its root is checked first: BAD_CONTENT if the extents give another. */
  putContentExtents(_ref: ContentRef, _extents: readonly Extent[]): void {
    assert.fail('being built');
  }

  /** Opens a content for reading; UNKNOWN_CONTENT if it is not here. */
  openContent(ref: ContentRef): OpenContent {
    throw new PgError('UNKNOWN_CONTENT', `${describeContent(ref)} is not in the store`);
  }

  /** `openContent(ref).readAt(into, offset)`, for one read only. */
  readContentAt(ref: ContentRef, into: Uint8Array, offset: number): number {
    return this.openContent(ref).readAt(into, offset);
  }

  /** Whether the sector is here (the all-zero sector always is). */
  hasSector(root: Uint8Array): boolean {
    return this.table('sectors').has(root);
  }

  /** Where the file of a sector is, or would be. */
  sectorPath(root: Uint8Array): string {
    const hex = Buffer.from(root).toString('hex');
    return join(sectorsDir(this.roots), hex.slice(0, 2), hex);
  }

  /** The 4 MiB of a sector, checked; MISSING_SECTOR, CORRUPT_SECTOR. */
  readSector(_root: Uint8Array): Buffer {
    assert.fail('being built');
  }

  /** Stores a sector (up to 4 MiB, zeros follow), durable on return; BAD_SECTOR if its root is another. Nothing if it is here already. */
  putSector(_root: Uint8Array, _data: Uint8Array): void {
    assert.fail('being built');
  }

  /** Begins an import of contents. The writer holds a lease until it ends. */
  writer(): ContentWriter {
    return openWriter();
  }

  async close(): Promise<void> {
    await this.index.close();
  }
}
