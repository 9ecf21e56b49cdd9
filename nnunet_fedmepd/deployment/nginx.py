"""Configurations of the two proxies between a site's node and the coordinator's engine.

    node --TLS--> sidecar --TLS, client certificate--> proxy --TLS--> engine
    (at the site, loopback)                            (at the coordinator, loopback)

The engine offers what nodes need, and what starts and stops programs at every site, at one port. The proxy publishes
only the former, only to connections with a site's certificate of today, and only if the node's key is that site's.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping

from jinja2 import Environment, StrictUndefined

from nnunet_fedmepd.deployment.certificates import COORDINATOR, load_certificate, node_key_pem, serial_number
from nnunet_fedmepd.deployment.kit import CoordinatorKit, SiteKit

ACCESS_LOG = "logs/proxy_access.log"
"""Of the coordinator's proxy, one line a request: Unix time, `CN=SITE`, path, status, bytes received, bytes sent."""

FLEET_CALLS = (
    "activate-node",
    "deactivate-node",
    "send-node-heartbeat",
    "pull-messages",
    "push-messages",
    "get-run",
    "get-fab",
    "push-object",
    "pull-object",
    "confirm-message-received",
)
"""What a node calls; registering is not among them."""

# The engine sends arrays in pieces of a few MB.
_LIMITS = """
  client_max_body_size 16m;
  client_body_buffer_size 1m;
  client_body_timeout 300s;
  send_timeout 300s;
  proxy_connect_timeout 20s;
  proxy_read_timeout 300s;
  proxy_send_timeout 300s;
  proxy_buffering off;
  proxy_request_buffering off;
  proxy_http_version 1.1;
"""

_COMMON = """
daemon off;
worker_processes 1;
pid tmp/nginx.pid;
error_log logs/{{ name }}_error.log warn;
events { worker_connections 1024; }
http {
  server_tokens off;
  client_body_temp_path tmp/body;
  proxy_temp_path tmp/proxy;
  fastcgi_temp_path tmp/fastcgi;
  uwsgi_temp_path tmp/uwsgi;
  scgi_temp_path tmp/scgi;
  map_hash_bucket_size 1024;
  map $uri $is_fleet_call { default 0; ~^/v1/fleet/({{ calls | join("|") }})$ 1; }
{{ limits }}
{{ rest }}
}
"""

_PROXY = """
  log_format traffic "$msec $ssl_client_s_dn $uri $status $request_length $bytes_sent";
  map $uri $is_counted { default 1; ~pull-messages$ 0; }

  # A site's certificate goes with that site's key and no other.
  map "$ssl_client_s_dn $http_flwr_public_key" $is_own_key {
    default 0;
{%- for site, key in keys.items() %}
    "CN={{ site }} {{ key }}" 1;
{%- endfor %}
  }

  # Of the certificates that were ever signed for a site, one is let in.
  map "$ssl_client_s_dn $ssl_client_serial" $is_current_certificate {
    default 0;
{%- for site, serial in serials.items() %}
    "CN={{ site }} {{ serial }}" 1;
{%- endfor %}
  }

  upstream engine { server 127.0.0.1:{{ kit.superlink_port }}; keepalive 64; }
  server {
    listen {{ kit.listen }}:{{ kit.port }} ssl;
    access_log {{ access_log }} traffic if=$is_counted;
    ssl_protocols TLSv1.3;
    ssl_certificate server.crt;
    ssl_certificate_key server.key;
    ssl_client_certificate client_ca.crt;
    ssl_verify_client on;
    ssl_verify_depth 1;
    location / {
      if ($is_fleet_call = 0) { return 404; }
      if ($is_current_certificate = 0) { return 403; }
      if ($request_method != POST) { return 405; }
      if ($is_own_key = 0) { return 403; }
      proxy_pass https://engine$uri;
      proxy_set_header Connection "";
      proxy_set_header Host $host;
      proxy_set_header flwr-public-key $http_flwr_public_key;
      proxy_ssl_protocols TLSv1.3;
      proxy_ssl_trusted_certificate ca.crt;
      proxy_ssl_verify on;
      proxy_ssl_name {{ coordinator }};
    }
  }
"""

_SIDECAR = """
  access_log off;
  upstream coordinator { server {{ address }}; keepalive 8; }
  server {
    listen 127.0.0.1:{{ kit.sidecar_port }} ssl;
    ssl_protocols TLSv1.3;
    ssl_certificate client.crt;
    ssl_certificate_key client.key;
    location / {
      if ($is_fleet_call = 0) { return 404; }
      proxy_pass https://coordinator$uri;
      proxy_set_header Connection "";
      proxy_set_header Host {{ coordinator }};
      proxy_ssl_protocols TLSv1.3;
      proxy_ssl_certificate client.crt;
      proxy_ssl_certificate_key client.key;
      proxy_ssl_trusted_certificate ca.crt;
      proxy_ssl_verify on;
      proxy_ssl_verify_depth 1;
      proxy_ssl_name {{ coordinator }};
      proxy_ssl_server_name on;
    }
  }
"""


def proxy_configuration(kit: CoordinatorKit, node_keys: Mapping[str, bytes]) -> str:
    """Return nginx.conf of the coordinator's proxy.

    Args:
        kit: of the coordinator.
        node_keys: site -> public key of its node, in OpenSSH's format.

    Raises:
        ConfigurationError: a site's certificate cannot be read.
    """
    keys = {site: b64encode(node_key_pem(key)).decode() for site, key in node_keys.items()}
    files = {site: kit.certificate(site) for site in node_keys if not kit.is_revoked(site)}
    serials = {site: serial_number(load_certificate(file)) for site, file in files.items()}
    return _rendered(_PROXY, "proxy", kit=kit, keys=keys, serials=serials, access_log=ACCESS_LOG)


def sidecar_configuration(kit: SiteKit) -> str:
    """Return nginx.conf of a site's sidecar."""
    address = kit.via or f"{kit.coordinator_host}:{kit.coordinator_port}"
    return _rendered(_SIDECAR, "sidecar", kit=kit, address=address)


def _rendered(part: str, name: str, **values: object) -> str:
    templates = Environment(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False)
    rest = templates.from_string(part).render(coordinator=COORDINATOR, **values)
    return templates.from_string(_COMMON).render(name=name, calls=FLEET_CALLS, limits=_LIMITS.strip("\n"), rest=rest)
