// A reverse proxy of Go's standard library, as Caddy and Traefik have it, run
// by the tests as a program of its own.
//
// Usage: reverse_proxy PORT UPSTREAM_PORT
package main

import (
	"net/http"
	"net/http/httputil"
	"os"
)

func main() {
	proxy := &httputil.ReverseProxy{
		Rewrite: func(request *httputil.ProxyRequest) {
			request.Out.URL.Scheme = "http"
			request.Out.URL.Host = "127.0.0.1:" + os.Args[2]
			request.Out.Host = request.In.Host
		},
		Transport: &http.Transport{MaxIdleConnsPerHost: 4, MaxConnsPerHost: 4},
	}
	panic(http.ListenAndServe("127.0.0.1:"+os.Args[1], proxy))
}
