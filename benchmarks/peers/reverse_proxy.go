// A proxy as one writes it in Go: httputil.ReverseProxy, and a director that attaches the headers.
// What it goes by comes in the environment: see `values` in ../proxies.py.
package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"log"
	"net/http"
	"net/http/httputil"
	"os"
	"strconv"
	"sync"
	"time"
)

// buffers spares ReverseProxy an allocation of 32 KiB for each answer.
type buffers struct{ pool sync.Pool }

func (b *buffers) Get() []byte {
	if buffer, ok := b.pool.Get().(*[]byte); ok {
		return *buffer
	}
	return make([]byte, 32*1024)
}

func (b *buffers) Put(buffer []byte) { b.pool.Put(&buffer) }

func attachEka(header http.Header) {
	token := os.Getenv("TOKEN")
	header["Authorization"] = []string{"Bearer " + token}
	header["Auth"] = []string{token}
}

func eko() func(http.Header) {
	key := []byte(os.Getenv("HMAC_KEY"))
	developerKey := os.Getenv("DEVELOPER_KEY")
	return func(header http.Header) {
		stamp := strconv.FormatInt(time.Now().UnixMilli(), 10)
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(stamp))
		header["developer_key"] = []string{developerKey}
		header["Secret-Key"] = []string{base64.StdEncoding.EncodeToString(mac.Sum(nil))}
		header["Secret-Key-Timestamp"] = []string{stamp}
	}
}

func main() {
	attach := attachEka
	if os.Getenv("SIGNING") == "eko" {
		attach = eko()
	}
	scheme, address := os.Getenv("SCHEME"), os.Getenv("UPSTREAM_ADDRESS")
	certificate, err := os.ReadFile(os.Getenv("CA"))
	if err != nil {
		log.Fatal(err)
	}
	authorities := x509.NewCertPool()
	authorities.AppendCertsFromPEM(certificate)
	proxy := &httputil.ReverseProxy{
		Director: func(request *http.Request) {
			request.URL.Scheme, request.URL.Host, request.Host = scheme, address, address
			request.Header["X-Forwarded-For"] = nil // adds none
			attach(request.Header)
		},
		Transport: &http.Transport{
			DisableCompression:  true,
			MaxIdleConnsPerHost: 20000,
			IdleConnTimeout:     90 * time.Second,
			TLSClientConfig:     &tls.Config{RootCAs: authorities, MinVersion: tls.VersionTLS13},
		},
	}
	if os.Getenv("BUFFER_POOL") != "" {
		proxy.BufferPool = &buffers{}
	}
	log.Fatal(http.ListenAndServe("127.0.0.1:"+os.Getenv("PORT"), proxy))
}
