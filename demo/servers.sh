# shellcheck shell=bash
# The servers of the demo, all Debian's: three nginx, two FreeRADIUS, three dnsmasq. Sourced by run.sh, which defines
# $work, $servers (the namespace) and `start`.

make_certificates() {
  openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj "/CN=weir demo authority" \
    -keyout "$work/ca.key" -out "$work/ca.pem" 2>/dev/null
  local name
  for name in www.example.com api.example.com; do
    openssl req -newkey rsa:2048 -nodes -subj "/CN=$name" -keyout "$work/$name.key" -out "$work/$name.csr" 2>/dev/null
    openssl x509 -req -in "$work/$name.csr" -CA "$work/ca.pem" -CAkey "$work/ca.key" -CAcreateserial -days 2 \
      -extfile <(echo "subjectAltName=DNS:$name") -out "$work/$name.pem" 2>/dev/null
  done
}

# start_nginx NAME ADDRESS CERTIFICATE
start_nginx() {
  mkdir -p "$work/$1"
  cat >"$work/$1/nginx.conf" <<END
daemon off;
master_process off;
pid $work/$1/nginx.pid;
error_log $work/$1/error.log;
events { worker_connections 256; }
http {
  access_log off;
  client_body_temp_path $work/$1/body;
  proxy_temp_path $work/$1/proxy;
  fastcgi_temp_path $work/$1/fastcgi;
  uwsgi_temp_path $work/$1/uwsgi;
  scgi_temp_path $work/$1/scgi;
  server {
    listen $2:443 ssl;
    ssl_certificate $work/$3.pem;
    ssl_certificate_key $work/$3.key;
    location / { return 200 "$1\n"; }
  }
}
END
  start "$1" "$servers" nginx -p "$work/$1" -e "$work/$1/error.log" -c "$work/$1/nginx.conf"
}

# start_radius NAME ADDRESS
start_radius() {
  mkdir -p "$work/$1"
  cat >"$work/$1/radiusd.conf" <<END
prefix = /usr
libdir = /usr/lib/freeradius
logdir = $work/$1
run_dir = $work/$1
log { destination = stdout }
security {
  reject_delay = 0
}
client weir {
  ipaddr = 10.0.0.0/24
  secret = testing123
}
modules {
}
server demo {
  listen {
    type = auth
    ipaddr = $2
    port = 1812
  }
  authorize {
    update control { Auth-Type := Accept }
    update reply { Reply-Message := "$1" }
  }
}
END
  start "$1" "$servers" freeradius -f -l stdout -d "$work/$1" -n radiusd
}

# start_dns NAME ADDRESS
start_dns() {
  start "$1" "$servers" dnsmasq --keep-in-foreground --conf-file=/dev/null --no-resolv --no-hosts --pid-file= \
    --user=root --bind-interfaces --listen-address="$2" --except-interface=lo --txt-record=whoami.example,"$1"
}

start_servers() {
  make_certificates
  start_nginx www-1 10.0.0.20 www.example.com
  start_nginx www-2 10.0.0.21 www.example.com
  start_nginx api-1 10.0.0.22 api.example.com
  start_radius radius-1 10.0.0.30
  start_radius radius-2 10.0.0.31
  start_dns dns-1 10.0.0.40
  start_dns dns-2 10.0.0.41
  start_dns dns-3 10.0.0.42
}
