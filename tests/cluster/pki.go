package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

const certificateLife = 365 * 24 * time.Hour

// An authority signs every certificate of one cluster.
type authority struct {
	key     *ecdsa.PrivateKey
	cert    *x509.Certificate
	certPEM []byte
}

// A credential is a certificate with its key, PEM-encoded.
type credential struct{ cert, key []byte }

func newAuthority(name string) (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(certificateLife),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &authority{key: key, cert: cert, certPEM: pemBlock("CERTIFICATE", der)}, nil
}

// issue signs a certificate, good as a client's and, with hosts, as a server's.
func (a *authority) issue(subject pkix.Name, hosts ...string) (credential, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return credential{}, err
	}
	serial, err := newSerial()
	if err != nil {
		return credential{}, err
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      subject,
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(certificateLife),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	for _, host := range hosts {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	if len(hosts) > 0 {
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		return credential{}, err
	}
	keyPEM, err := encodeKey(key)
	if err != nil {
		return credential{}, err
	}
	return credential{cert: pemBlock("CERTIFICATE", der), key: keyPEM}, nil
}

// kubeconfig is a file with which subject talks to the API server at url; nothing in it refers to another file.
func (a *authority) kubeconfig(cluster, url string, subject pkix.Name) ([]byte, error) {
	client, err := a.issue(subject)
	if err != nil {
		return nil, err
	}
	config := clientcmdapi.NewConfig()
	config.Clusters[cluster] = &clientcmdapi.Cluster{Server: url, CertificateAuthorityData: a.certPEM}
	config.AuthInfos[cluster] = &clientcmdapi.AuthInfo{ClientCertificateData: client.cert, ClientKeyData: client.key}
	config.Contexts[cluster] = &clientcmdapi.Context{Cluster: cluster, AuthInfo: cluster}
	config.CurrentContext = cluster
	return clientcmd.Write(*config)
}

// files collects what is to be written below one directory, so that each caller checks one error.
type files struct {
	dir string
	err error
}

func (f *files) write(name string, data []byte) {
	if f.err != nil {
		return
	}
	path := filepath.Join(f.dir, name)
	if f.err = os.MkdirAll(filepath.Dir(path), 0o700); f.err == nil {
		f.err = os.WriteFile(path, data, 0o600)
	}
}

func (f *files) credential(name string, c credential, err error) {
	if f.err == nil {
		f.err = err
	}
	f.write(name+".crt", c.cert)
	f.write(name+".key", c.key)
}

func (f *files) kubeconfig(name string, data []byte, err error) {
	if f.err == nil {
		f.err = err
	}
	f.write(name, data)
}

// writeControlPlanePKI makes all that the control plane and the administrator need to know each other by.
func writeControlPlanePKI(dir string, c *config) (*authority, error) {
	ca, err := newAuthority("voicedock-" + c.Name)
	if err != nil {
		return nil, err
	}
	f := &files{dir: dir}
	f.write("pki/ca.crt", ca.certPEM)
	// The controller manager signs CertificateSigningRequests with it.
	caKey, err := encodeKey(ca.key)
	if err != nil {
		return nil, err
	}
	f.write("pki/ca.key", caKey)

	server, err := ca.issue(pkix.Name{CommonName: "kube-apiserver"}, "kubernetes", "kubernetes.default",
		"kubernetes.default.svc", "kubernetes.default.svc.cluster.local", "localhost", "127.0.0.1", c.serviceIP(1), c.APIAddress)
	f.credential("pki/apiserver", server, err)
	toKubelet, err := ca.issue(pkix.Name{CommonName: "kube-apiserver-kubelet-client", Organization: []string{"system:masters"}})
	f.credential("pki/kubelet-client", toKubelet, err)

	signer, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	signerKey, err := encodeKey(signer)
	if err != nil {
		return nil, err
	}
	signerPublic, err := x509.MarshalPKIXPublicKey(signer.Public())
	if err != nil {
		return nil, err
	}
	f.write("pki/service-accounts.key", signerKey)
	f.write("pki/service-accounts.pub", pemBlock("PUBLIC KEY", signerPublic))

	for name, subject := range map[string]pkix.Name{
		"kubeconfig":                  {CommonName: "admin", Organization: []string{"system:masters"}},
		"pki/controller-manager.conf": {CommonName: "system:kube-controller-manager"},
		"pki/scheduler.conf":          {CommonName: "system:kube-scheduler"},
	} {
		data, err := ca.kubeconfig(c.contextName(), c.apiURL(), subject)
		f.kubeconfig(name, data, err)
	}
	return ca, f.err
}

func newSerial() (*big.Int, error) {
	return rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
}

func encodeKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode a private key: %w", err)
	}
	return pemBlock("EC PRIVATE KEY", der), nil
}

func pemBlock(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}
