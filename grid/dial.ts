import { isIP } from 'node:net';
import { connect, type TLSSocket } from 'node:tls';
import { PgError } from '../mdm/error.ts';
import type { Roots } from '../store/paths.ts';
import { Connection, PATIENCE, refuseSocket, type Patience, type Services } from './connection.ts';
import { loadIdentity } from './identity.ts';
import { formatAddress, type Peer } from './peers.ts';
import { ALPN, HANDSHAKE_TIMEOUT_MS, presentedId, tlsOptions } from './tls.ts';

/**
 * Connects to a known peer and greets it. Whoever answers at the address must hold exactly the peer's key.
 * Errors: PEER_UNREACHABLE, PEER_KEY_MISMATCH (somebody else answers there), PEER_UNKNOWN (it does not know this node),
 * UNKNOWN_PROTOCOL (another version of pg).
 */
export async function dial(
  roots: Roots,
  peer: Peer,
  services: Services = {},
  patience: Patience = PATIENCE,
): Promise<Connection> {
  const identity = loadIdentity(roots);
  const socket = await handshake(peer, tlsOptions(identity));
  if (presentedId(socket) !== peer.id) {
    const what = `another node answers at ${formatAddress(peer)}: its key is not that of peer ${peer.name}`;
    refuseSocket(socket, new PgError('PEER_KEY_MISMATCH', 'the key presented is not the one expected at this address'));
    throw new PgError('PEER_KEY_MISMATCH', what, {
      hint: `if the node was set up anew: 'pg node id' there, then 'pg peer rm ${peer.name}' and 'pg peer add ${peer.name} ...' here`,
    });
  }
  const connection = new Connection(socket, peer, services, patience);
  try {
    await connection.request('node', 'hello', { software: 'pg' });
  } catch (error) {
    connection.close();
    throw (await refusal(connection, identity.id)) ?? error;
  }
  return connection;
}

/** A refusal in the words of the one who was refused. */
async function refusal(connection: Connection, ownId: string): Promise<PgError | undefined> {
  const reason = await connection.closed;
  if (reason?.code !== 'PEER_UNKNOWN') return undefined;
  return new PgError(
    'PEER_UNKNOWN',
    `peer ${connection.peer.name} refused the connection: it does not know this node`,
    {
      hint: `on the other host: pg peer add NAME HOST:PORT ${ownId}`,
    },
  );
}

function handshake(peer: Peer, options: ReturnType<typeof tlsOptions>): Promise<TLSSocket> {
  return new Promise((resolve, reject) => {
    const servername = isIP(peer.host) === 0 ? { servername: peer.host } : {};
    const socket = connect({ host: peer.host, port: peer.port, ...servername, ...options });
    const fail = (why: string): void => {
      socket.destroy();
      const hint = `is the daemon running there ('pg node status') and its port open? 'pg peer ls' shows the address used`;
      reject(
        new PgError('PEER_UNREACHABLE', `peer ${peer.name} at ${formatAddress(peer)} cannot be reached: ${why}`, {
          hint,
        }),
      );
    };
    const timer = setTimeout(() => fail(`no answer within ${HANDSHAKE_TIMEOUT_MS / 1000} s`), HANDSHAKE_TIMEOUT_MS);
    const failed = (error: Error & { code?: string }): void => {
      clearTimeout(timer);
      fail(error.code === 'ECONNREFUSED' ? 'connection refused' : error.message);
    };
    socket.once('error', failed);
    socket.once('secureConnect', () => {
      clearTimeout(timer);
      if (socket.alpnProtocol !== ALPN) return fail('what answers there is not a pg node');
      socket.off('error', failed);
      resolve(socket);
    });
  });
}
