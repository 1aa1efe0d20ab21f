import { base32 } from 'multiformats/bases/base32';

/**
 * The protocols that this node speaks. A protocol is named by the CID of the document that specifies it (CIDv1, raw, BLAKE2b-256): to
 * change a word of the specification is to speak another protocol. `test/grid/protocol.test.ts` keeps these equal to the documents.
 */
export const PROTOCOLS = {
  /** docs/protocols/node.md: frames, envelopes, hello, errors. */
  node: 'bafk2bzacedugbgyfshgadxivliq2t6wbfncgfofzdsf5etdz4tovxgs7rogzc',
  /** docs/protocols/contents.md: which trie nodes, contents and sectors the other lacks, and shipping them. */
  contents: 'bafk2bzaceabincqujf5h4hgkfkbojjm2nruqrm7cc7lp43akncnr65udww6qg',
  /** docs/protocols/migrate.md: the move of a container. */
  migrate: 'bafk2bzaceauswrktbyp54wwqy23kdmechqxec6cau7md6qydc67xjsx6aetsa',
} as const;

export type ProtocolName = keyof typeof PROTOCOLS;

/** The binary CID of a protocol, as tag 42 carries it: with the leading zero byte of the identity multibase (DAG-CBOR, Links). */
const LINKS = new Map<ProtocolName, Buffer>(
  (Object.keys(PROTOCOLS) as ProtocolName[]).map((name) => [
    name,
    Buffer.concat([Buffer.from([0]), base32.decode(PROTOCOLS[name])]),
  ]),
);

/** The bytes under tag 42 for `protocol`. */
export function linkOf(protocol: ProtocolName): Uint8Array {
  return LINKS.get(protocol)!;
}

/** The protocol that a tag 42 links to, or undefined when it is none of ours. */
export function protocolOfLink(link: Uint8Array): ProtocolName | undefined {
  for (const [name, known] of LINKS) if (known.equals(link)) return name;
  return undefined;
}
