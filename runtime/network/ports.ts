import { createSocket, type Socket as DatagramSocket } from 'node:dgram';
import { connect, createServer, type Server } from 'node:net';
import { PgError } from '../../mdm/error.ts';
import type { PortRequest } from '../record.ts';

/**
 * The published ports of a container, held by listening on them: nobody else can take them, and who asks for one that is taken hears so.
 * Connections are passed on by the kernel (firewall.ts) before they get here, except those by IPv6, which are carried by hand.
 */
export interface HeldPorts {
  /** The requests with the ports that were chosen for 0. */
  ports: PortRequest[];
  /** Where connections that arrive here are to go; until it is called they wait. */
  forwardTo(ip: string): void;
  release(): void;
}

/** Listens on every port, or on none: PgError('PORT_TAKEN') naming the one that is taken, BAD_PORT when the address is not this host's. */
export async function holdPorts(requests: readonly PortRequest[]): Promise<HeldPorts> {
  const servers: { server: Server; port: PortRequest }[] = [];
  const sockets: DatagramSocket[] = [];
  const ports: PortRequest[] = [];
  const { promise: target, resolve: announce } = Promise.withResolvers<string>();
  const release = (): void => {
    for (const { server } of servers) server.close();
    for (const socket of sockets) socket.close();
  };
  try {
    for (const request of requests) {
      if (request.protocol === 'udp') {
        const socket = await bindUdp(request);
        sockets.push(socket);
        ports.push({ ...request, hostPort: socket.address().port });
        continue;
      }
      const server = await listenTcp(request, request.hostIp || '0.0.0.0', request.hostPort, target);
      const port = { ...request, hostPort: (server.address() as { port: number }).port };
      servers.push({ server, port });
      ports.push(port);
      if (request.hostIp !== '') continue;
      const v6 = await listenTcp(request, '::', port.hostPort, target).catch((error: PgError) => {
        if (error.code === 'PORT_TAKEN') throw error;
        return undefined;
      });
      if (v6 !== undefined) servers.push({ server: v6, port });
    }
  } catch (error) {
    release();
    throw error;
  }
  return { ports, forwardTo: announce, release };
}

function listenTcp(request: PortRequest, host: string, port: number, target: Promise<string>): Promise<Server> {
  return new Promise((resolve, reject) => {
    const server = createServer({ pauseOnConnect: true }, (client) => {
      client.on('error', () => client.destroy());
      void target.then((ip) => {
        const upstream = connect(request.containerPort, ip);
        upstream.on('error', () => client.destroy());
        client.on('close', () => upstream.destroy());
        client.pipe(upstream).pipe(client);
      });
    });
    server.once('error', (error: NodeJS.ErrnoException) => reject(bindError(error, host, port, 'tcp')));
    server.listen({ host, port, ipv6Only: true, exclusive: true }, () => {
      server.unref();
      resolve(server);
    });
  });
}

function bindUdp(request: PortRequest): Promise<DatagramSocket> {
  const host = request.hostIp || '0.0.0.0';
  return new Promise((resolve, reject) => {
    const socket = createSocket({ type: host.includes(':') ? 'udp6' : 'udp4' });
    socket.once('error', (error: NodeJS.ErrnoException) => reject(bindError(error, host, request.hostPort, 'udp')));
    socket.bind({ address: host, port: request.hostPort, exclusive: true }, () => {
      socket.unref();
      resolve(socket);
    });
  });
}

function bindError(error: NodeJS.ErrnoException, host: string, port: number, protocol: string): PgError {
  if (error.code === 'EADDRINUSE') {
    return new PgError('PORT_TAKEN', `Bind for ${host}:${port}/${protocol} failed: port is already allocated`, {
      hint: `ss -lnp 'sport = :${port}' shows who has it; choose another with -p`,
      cause: error,
    });
  }
  return new PgError('BAD_PORT', `cannot listen on ${host}:${port}/${protocol}: ${error.message}`, { cause: error });
}
