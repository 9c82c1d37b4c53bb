//! WASI 0.2 as a component finds it: wasmtime's own, stricter where files are concerned, and
//! without sockets.
//!
//! Interfaces are named one by one: whatever a later version adds is not there until it is named.
//! A component that imports all of `wasi:cli/command` still instantiates, and what it may not do
//! answers with an error of its own kind.

use wasmtime::component::{HasData, Linker, Resource, ResourceTable};
use wasmtime_wasi::WasiView;
use wasmtime_wasi::cli::{WasiCli, WasiCliView};
use wasmtime_wasi::clocks::{WasiClocks, WasiClocksView};
use wasmtime_wasi::p2::bindings::sockets::{self as net, network};
use wasmtime_wasi::p2::bindings::{cli, clocks, filesystem, io, random};
use wasmtime_wasi::p2::{DynPollable, SocketError, SocketResult, TcpSocket, UdpSocket};
use wasmtime_wasi::random::WasiRandom;
use wasmtime_wasi::sockets::{WasiSockets, WasiSocketsView};
use wasmtime_wasi_http::p2::bindings::http as web;
use wasmtime_wasi_http::{WasiHttp, WasiHttpView};

use crate::files::FileSystem;
use crate::replay::Waiting;
use crate::wasi::State;
use crate::{early, host};

/// The interfaces a component may import.
///
/// They are linked once for every component. Those for `wasi:http` and for tools ask what this run
/// was given from [`State`]: where it was given nothing, they refuse.
pub(crate) fn linker(engine: &wasmtime::Engine) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    let l = &mut linker;
    io::error::add_to_linker::<State, Table>(l, |state| state.ctx().table)?;
    io::poll::add_to_linker::<State, Table>(l, |state| state.ctx().table)?;
    io::streams::add_to_linker::<State, Table>(l, |state| state.ctx().table)?;
    clocks::wall_clock::add_to_linker::<State, WasiClocks>(l, State::clocks)?;
    clocks::monotonic_clock::add_to_linker::<State, Waiting>(l, State::waits)?;
    random::random::add_to_linker::<State, WasiRandom>(l, |state| state.ctx().ctx.random())?;
    random::insecure::add_to_linker::<State, WasiRandom>(l, |state| state.ctx().ctx.random())?;
    random::insecure_seed::add_to_linker::<State, WasiRandom>(l, |state| state.ctx().ctx.random())?;
    filesystem::types::add_to_linker::<State, FileSystem>(l, State::files)?;
    filesystem::preopens::add_to_linker::<State, FileSystem>(l, State::files)?;
    command(l)?;
    sockets(l)?;
    let options = web::types::LinkOptions::default();
    web::types::add_to_linker::<State, WasiHttp>(l, &options, State::http)?;
    web::outgoing_handler::add_to_linker::<State, WasiHttp>(l, State::http)?;
    early::link(l)?;
    host::link(l)?;
    Ok(linker)
}

struct Table;

impl HasData for Table {
    type Data<'a> = &'a mut ResourceTable;
}

fn command(l: &mut Linker<State>) -> wasmtime::Result<()> {
    cli::environment::add_to_linker::<State, WasiCli>(l, State::cli)?;
    cli::exit::add_to_linker::<State, WasiCli>(l, State::cli)?;
    cli::stdin::add_to_linker::<State, WasiCli>(l, State::cli)?;
    cli::stdout::add_to_linker::<State, WasiCli>(l, State::cli)?;
    cli::stderr::add_to_linker::<State, WasiCli>(l, State::cli)?;
    cli::terminal_input::add_to_linker::<State, WasiCli>(l, State::cli)?;
    cli::terminal_output::add_to_linker::<State, WasiCli>(l, State::cli)?;
    cli::terminal_stdin::add_to_linker::<State, WasiCli>(l, State::cli)?;
    cli::terminal_stdout::add_to_linker::<State, WasiCli>(l, State::cli)?;
    cli::terminal_stderr::add_to_linker::<State, WasiCli>(l, State::cli)?;
    Ok(())
}

/// No socket is ever made and no name looked up, so all that could be done with one is out of
/// reach, whatever wasmtime's defaults are.
fn sockets(l: &mut Linker<State>) -> wasmtime::Result<()> {
    let options = network::LinkOptions::default();
    network::add_to_linker::<State, WasiSockets>(l, &options, State::sockets)?;
    net::instance_network::add_to_linker::<State, WasiSockets>(l, State::sockets)?;
    net::tcp::add_to_linker::<State, WasiSockets>(l, State::sockets)?;
    net::udp::add_to_linker::<State, WasiSockets>(l, State::sockets)?;
    net::tcp_create_socket::add_to_linker::<State, Closed>(l, |_| Closed)?;
    net::udp_create_socket::add_to_linker::<State, Closed>(l, |_| Closed)?;
    net::ip_name_lookup::add_to_linker::<State, Closed>(l, |_| Closed)?;
    Ok(())
}

/// The network, to a guest.
struct Closed;

impl HasData for Closed {
    type Data<'a> = Closed;
}

/// Only errors pass here.
impl network::Host for Closed {
    fn convert_error_code(&mut self, error: SocketError) -> wasmtime::Result<network::ErrorCode> {
        error.downcast()
    }

    fn network_error_code(
        &mut self,
        _: Resource<wasmtime::Error>,
    ) -> wasmtime::Result<Option<network::ErrorCode>> {
        Ok(None)
    }
}

impl network::HostNetwork for Closed {
    fn drop(&mut self, _: Resource<network::Network>) -> wasmtime::Result<()> {
        Err(network::ErrorCode::AccessDenied.into())
    }
}

impl net::tcp_create_socket::Host for Closed {
    fn create_tcp_socket(
        &mut self,
        _: network::IpAddressFamily,
    ) -> SocketResult<Resource<TcpSocket>> {
        Err(network::ErrorCode::AccessDenied.into())
    }
}

impl net::udp_create_socket::Host for Closed {
    async fn create_udp_socket(
        &mut self,
        _: network::IpAddressFamily,
    ) -> SocketResult<Resource<UdpSocket>> {
        Err(network::ErrorCode::AccessDenied.into())
    }
}

type Addresses = Resource<net::ip_name_lookup::ResolveAddressStream>;

impl net::ip_name_lookup::Host for Closed {
    fn resolve_addresses(
        &mut self,
        _: Resource<network::Network>,
        _: String,
    ) -> SocketResult<Addresses> {
        Err(network::ErrorCode::AccessDenied.into())
    }
}

impl net::ip_name_lookup::HostResolveAddressStream for Closed {
    fn resolve_next_address(&mut self, _: Addresses) -> SocketResult<Option<network::IpAddress>> {
        Err(network::ErrorCode::AccessDenied.into())
    }

    fn subscribe(&mut self, _: Addresses) -> wasmtime::Result<Resource<DynPollable>> {
        Err(network::ErrorCode::AccessDenied.into())
    }

    fn drop(&mut self, _: Addresses) -> wasmtime::Result<()> {
        Ok(())
    }
}
