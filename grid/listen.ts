import type { AddressInfo } from 'node:net';
import { createServer, type TLSSocket } from 'node:tls';
import { PgError } from '../mdm/error.ts';
import type { Roots } from '../store/paths.ts';
import { Connection, PATIENCE, refuseSocket, type Patience, type Service, type Services } from './connection.ts';
import { loadIdentity } from './identity.ts';
import { formatAddress, peerOfId, type Peer } from './peers.ts';
import { HANDSHAKE_TIMEOUT_MS, presentedId, tlsOptions } from './tls.ts';

/** More connections than this at once are not accepted: a bound on what strangers can make the node hold. */
const MAX_CONNECTIONS = 256;

/** What a listener needs of its owner. */
export interface Host {
  /** The services for a peer that has been let in; what they answer is up to the owner. Called once for every connection. */
  serve(peer: Peer, connection: () => Connection): Services;
  /** One line for the administrator about something that was refused or went wrong. */
  log(line: string): void;
}

export interface Listener {
  /** The address in use: with port 0 asked for, the port that was given. */
  address: { host: string; port: number };
  /** Closes the port and every connection. */
  close(): Promise<void>;
}

/**
 * Accepts known peers. Who connects must present and prove the key of a peer in the peers directory (read at each connection, so
 * `pg peer add` and `rm` take effect at once); before that nothing it sends is read. Others are told PEER_UNKNOWN and hung up on.
 * Errors: ADDRESS_IN_USE, ADDRESS_NOT_HERE.
 */
export async function listen(
  roots: Roots,
  at: { host: string; port: number },
  host: Host,
  patience: Patience = PATIENCE,
): Promise<Listener> {
  const identity = loadIdentity(roots);
  const connections = new Set<Connection>();
  const server = createServer({ ...tlsOptions(identity), requestCert: true, handshakeTimeout: HANDSHAKE_TIMEOUT_MS });
  server.maxConnections = MAX_CONNECTIONS;
  server.on('tlsClientError', (error, socket) => {
    // A port scanner, a browser, a node without an ed25519 key: nothing was agreed on, so there is nobody to tell but the log.
    host.log(`refused ${socket.remoteAddress ?? 'a connection'}: no TLS 1.3 handshake (${error.message})`);
    socket.destroy();
  });
  server.on('secureConnection', (socket) => {
    const connection = admit(roots, socket, host, patience);
    if (connection === undefined) return;
    connections.add(connection);
    void connection.closed.then((reason) => {
      connections.delete(connection);
      if (reason !== undefined) host.log(`peer ${connection.peer.name}: ${reason.message}`);
    });
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => reject(cannotListen(at, error)));
    server.listen(at.port, at.host, resolve);
  });
  server.on('error', (error) => host.log(`the listener: ${error.message}`));
  const { address, port } = server.address() as AddressInfo;
  const close = async (): Promise<void> => {
    const done = new Promise((resolve) => server.close(resolve));
    for (const connection of connections) connection.close();
    await done;
  };
  return { address: { host: address, port }, close };
}

/** The connection with a known peer; undefined when the other side was refused. */
function admit(roots: Roots, socket: TLSSocket, host: Host, patience: Patience): Connection | undefined {
  const from = formatAddress({ host: socket.remoteAddress ?? '?', port: socket.remotePort ?? 0 });
  const id = presentedId(socket);
  let peer: Peer | undefined;
  try {
    peer = id === undefined ? undefined : peerOfId(roots, id);
  } catch (error) {
    host.log(`the known peers cannot be read: ${error instanceof Error ? error.message : String(error)}`);
  }
  if (peer === undefined) {
    host.log(
      `PEER_UNKNOWN: refused ${from}, who presented ${id === undefined ? 'no usable key' : `the unknown id ${id}`}`,
    );
    refuseSocket(socket, new PgError('PEER_UNKNOWN', 'this node does not know you'));
    return undefined;
  }
  // The services are asked for by a connection that does not exist yet; they reach it through the function.
  let connection: Connection | undefined;
  const services = host.serve(peer, () => connection!);
  connection = new Connection(socket, peer, { ...services, node: { ...services.node, hello } }, patience);
  return connection;
}

/** The greeting: who speaks the same `node` protocol (its pCID) may go on. */
const hello: Service = async () => ({ body: { software: 'pg' } });

function cannotListen(at: { host: string; port: number }, error: NodeJS.ErrnoException): PgError {
  const where = formatAddress(at);
  if (error.code === 'EADDRINUSE') {
    return new PgError('ADDRESS_IN_USE', `cannot listen on ${where}: the address is in use`, {
      hint: 'is a node running already? pg node status',
    });
  }
  if (error.code === 'EADDRNOTAVAIL') {
    return new PgError('ADDRESS_NOT_HERE', `cannot listen on ${where}: this host has no such address`, {
      hint: 'ip address',
    });
  }
  return new PgError('CANNOT_LISTEN', `cannot listen on ${where}: ${error.message}`);
}
